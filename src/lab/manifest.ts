import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What a folder in the cache is made of. It is written last, so a folder without it is not complete. */
export interface Manifest {
  component: string;
  /** What it is, with its version, for people. */
  description: string;
  packages: { name: string; version: string; architecture: string; sha256: string }[];
  /** The files that users of the folder need, relative to it, by their part. */
  files: Record<string, string>;
  created: string;
}

const FILE = 'manifest.json';

export async function writeManifest(folder: string, manifest: Manifest): Promise<void> {
  await writeFile(join(folder, FILE), `${JSON.stringify(manifest, null, 2)}\n`);
}

/** The manifest of a folder, or undefined if it has none that can be read. */
export async function readManifest(folder: string): Promise<Manifest | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(join(folder, FILE), 'utf8'));
    return isManifest(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isManifest(value: unknown): value is Manifest {
  if (typeof value !== 'object' || value === null) return false;
  const { component, description, packages, files } = value as Partial<Record<keyof Manifest, unknown>>;
  return (
    typeof component === 'string' &&
    typeof description === 'string' &&
    Array.isArray(packages) &&
    typeof files === 'object' &&
    files !== null &&
    Object.values(files).every((file) => typeof file === 'string')
  );
}
