import { readFileSync } from 'node:fs';

interface PackageFile {
  readonly version: string;
}

/** Of this program, as its package says. */
export const { version } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as PackageFile;
