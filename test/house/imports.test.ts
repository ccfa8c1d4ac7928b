import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const SRC = fileURLToPath(new URL('../../src', import.meta.url));

/** Which rooms a room may import, besides itself. A room that is not listed does not exist. */
const ARROWS: Record<string, readonly string[]> = {
  bits: [],
  trace: [],
  spec: ['bits'],
  memory: ['bits'],
  smmu: ['spec', 'memory', 'bits'],
  iommufd: ['bits'],
  accel: ['smmu', 'iommufd', 'spec', 'bits'],
  'host/sim': ['smmu', 'iommufd', 'memory', 'spec', 'bits'],
  'host/linux': ['iommufd', 'sys'],
  sys: [],
  guest: ['spec', 'memory', 'bits'],
  conformance: ['smmu', 'spec', 'memory', 'bits'],
  explain: ['spec', 'memory', 'smmu', 'bits'],
  qemu: ['smmu', 'iommufd', 'spec', 'memory', 'bits', 'sys'],
  firmware: [],
  lab: ['qemu', 'firmware'],
  machine: [
    'explain',
    'qemu',
    'guest',
    'host/linux',
    'host/sim',
    'accel',
    'trace',
    'iommufd',
    'smmu',
    'spec',
    'memory',
    'bits',
    'sys',
    'lab',
  ],
  explore: ['machine', 'guest', 'host/sim', 'accel', 'iommufd', 'smmu', 'spec', 'memory', 'bits'],
  cli: [
    'explore',
    'machine',
    'explain',
    'conformance',
    'lab',
    'qemu',
    'guest',
    'host/linux',
    'host/sim',
    'accel',
    'trace',
    'iommufd',
    'smmu',
    'spec',
    'memory',
    'bits',
    'sys',
  ],
};

/** Rooms that run in a browser page and deterministically: no `node:` and no npm package. */
const PURE = [
  'trace',
  'bits',
  'spec',
  'memory',
  'smmu',
  'iommufd',
  'accel',
  'host/sim',
  'guest',
  'conformance',
  'explain',
  'explore',
];

/** The package's own entry points stand above all rooms. */
const ENTRY_POINTS = ['index.ts'];

interface Import {
  readonly file: string;
  readonly room: string;
  readonly specifier: string;
  readonly targetRoom: string | undefined;
}

function roomOf(file: string): string {
  const parts = relative(SRC, file).split(sep);
  return parts[0] === 'host' ? `host/${parts[1]}` : parts[0];
}

function importsOf(file: string): Import[] {
  const text = readFileSync(file, 'utf8');
  const found: Import[] = [];
  for (const match of text.matchAll(
    /(?:^|[\s;])(?:import|export)\b[^'"`;]*?from\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)|^\s*import\s*['"]([^'"]+)['"]/gm,
  )) {
    const specifier = match[1] ?? match[2] ?? match[3];
    const target = specifier.startsWith('.') ? join(dirname(file), specifier) : undefined;
    found.push({
      file: relative(SRC, file),
      room: roomOf(file),
      specifier,
      targetRoom: target && roomOf(target),
    });
  }
  return found;
}

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => join(SRC, name));
const imports = files
  .filter((file) => !ENTRY_POINTS.includes(relative(SRC, file)))
  .flatMap((file) => importsOf(file));

it('every source file lies in a room of the house', () => {
  const strays = files
    .filter((file) => !ENTRY_POINTS.includes(relative(SRC, file)) && !(roomOf(file) in ARROWS))
    .map((file) => relative(SRC, file));
  expect(strays).toEqual([]);
});

it('finds the imports at all', () => {
  expect(imports.length).toBeGreaterThan(20);
});

it('no import runs upward', () => {
  const wrong = imports
    .filter(
      ({ room, targetRoom }) =>
        targetRoom !== undefined && targetRoom !== room && !ARROWS[room]?.includes(targetRoom),
    )
    .map(({ file, specifier }) => `${file} imports ${specifier}`);
  expect(wrong).toEqual([]);
});

it('pure rooms import neither node: nor npm packages', () => {
  const wrong = imports
    .filter(({ room, targetRoom }) => PURE.includes(room) && targetRoom === undefined)
    .map(({ file, specifier }) => `${file} imports ${specifier}`);
  expect(wrong).toEqual([]);
});

it('only sys loads koffi', () => {
  const wrong = imports
    .filter(({ room, specifier }) => specifier === 'koffi' && room !== 'sys')
    .map(({ file }) => file);
  expect(wrong).toEqual([]);
});
