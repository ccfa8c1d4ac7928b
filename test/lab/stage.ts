import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/**
 * The program and what tests run inside the lab, as JavaScript. It becomes /lab/vsmmu there; below node_modules, so that
 * the same files run here, too.
 */
export const STAGED = join(ROOT, 'node_modules', '.cache', 'vsmmu-lab');

/** Packages without machine code, which Node needs for test/lab/inside/cases.ts. */
const FOR_CASES = [
  'chai',
  '@vitest/expect',
  '@vitest/utils',
  '@vitest/spy',
  '@vitest/pretty-format',
  'tinyrainbow',
  '@standard-schema/spec',
];

export function setup(): void {
  mkdirSync(STAGED, { recursive: true });
  const compiler = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const project = join(ROOT, 'test', 'lab', 'inside', 'tsconfig.json');
  execFileSync(process.execPath, [compiler, '-p', project, '--outDir', STAGED], { stdio: 'inherit' });
  // What the program looks for beside its folder.
  for (const name of ['package.json', 'scenarios', 'lab'])
    cpSync(join(ROOT, name), join(STAGED, name), { recursive: true });

  const modules = join(STAGED, 'node_modules');
  for (const name of FOR_CASES)
    cpSync(join(ROOT, 'node_modules', name), join(modules, name), { recursive: true });
  const standIn = join(modules, 'vitest');
  mkdirSync(standIn, { recursive: true });
  writeFileSync(
    join(standIn, 'package.json'),
    JSON.stringify({ name: 'vitest', type: 'module', exports: './index.js' }),
  );
  writeFileSync(join(standIn, 'index.js'), "export * from '../../test/lab/inside/cases.js';\n");
}
