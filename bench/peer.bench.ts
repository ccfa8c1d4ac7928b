/**
 * Runs QEMU's SMMUv3 and ours one after the other, twice, on this machine, and prints the ratio of each row. QEMU's figures
 * come from a bare-metal program that it emulates (bench/peer/), and what a DMA costs without the SMMU is subtracted.
 * Exits with 3 if QEMU or the cross compiler is missing, with 1 if the program fails. `--json` for one object.
 */

import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { labStatus } from '../src/lab/status.ts';
import type { QemuProgram } from '../src/qemu/program.ts';

const run = promisify(execFile);
const ROUNDS = 2;
const REPEATS = 3;
const COMPILER = 'aarch64-linux-gnu-gcc';
const FOLDER = fileURLToPath(new URL('../../bench/peer/', import.meta.url));
const BUILD = fileURLToPath(new URL('../peer/', import.meta.url));
const OURS = fileURLToPath(new URL('translate.bench.js', import.meta.url));
const PROGRAM = `${BUILD}program.elf`;
const json = process.argv.includes('--json');

/** What a row has to reach, as times faster; by the beginning of its name. */
const TARGETS: readonly (readonly [prefix: string, ratio: number])[] = [
  ['cmd_', 2],
  ['', 3],
];

function missing(what: string, how: string): never {
  console.error(`${what} is missing. ${how}`);
  process.exit(3);
}

async function build(): Promise<void> {
  await mkdir(BUILD, { recursive: true });
  const flags =
    '-O2 -ffreestanding -nostdlib -static -fno-pie -no-pie -mgeneral-regs-only -mstrict-align -fno-builtin ' +
    '-fno-tree-loop-distribute-patterns -Wl,--build-id=none -Wl,--no-warn-rwx-segments';
  const sources = [`${FOLDER}start.S`, `${FOLDER}program.c`];
  await run(COMPILER, [
    ...flags.split(' '),
    `-DREPEATS=${REPEATS}`,
    `-Wl,-T,${FOLDER}program.ld`,
    '-o',
    PROGRAM,
    ...sources,
  ]).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    missing(COMPILER, 'On Debian: apt-get install gcc-aarch64-linux-gnu.');
  });
}

const least = (values: number[]): number => Math.min(...values);

/** Nanoseconds per operation of one launch, by row: the best of its repeats. */
async function launch(qemu: QemuProgram): Promise<Map<string, number>> {
  const { stdout } = await run(
    qemu.file,
    [
      ...qemu.leadingArguments,
      ...'-machine virt,highmem=off,gic-version=3,iommu=smmuv3,acpi=off -accel tcg -cpu cortex-a57'.split(
        ' ',
      ),
      ...'-m 512 -smp 1 -nodefaults -display none -serial stdio -device iommu-testdev'.split(' '),
      '-kernel',
      PROGRAM,
    ],
    { env: { ...process.env, ...qemu.environment }, timeout: 300_000, maxBuffer: 1 << 20 },
  );
  if (!/^done\r?$/mu.test(stdout)) throw new Error(`The program failed in QEMU:\n${stdout.slice(-400)}`);
  const samples = new Map<string, number[]>();
  for (const [, name = '', ticks, count, hertz] of stdout.matchAll(/^row (\S+) (\d+) (\d+) (\d+)/gmu)) {
    const list = samples.get(name) ?? [];
    samples.set(name, list);
    list.push((Number(ticks) * 1e9) / Number(hertz) / Number(count));
  }
  return new Map([...samples].map(([name, values]) => [name, least(values)]));
}

/** Time of the SMMU alone: less what the same DMA costs without it, or for events less the register accesses. */
function net(name: string, rows: Map<string, number>): number {
  const own = rows.get(name) ?? NaN;
  if (name.startsWith('cmd_')) return own;
  return own - (rows.get(name.startsWith('event_') ? 'mmio_empty' : 'dma_smmu_off') ?? NaN);
}

const { qemu } = await labStatus();
if (!qemu.found)
  missing(`QEMU (${qemu.reason})`, 'Run "vsmmu lab setup", or install qemu-system-arm 11.1 or later.');
await build();

const theirs = new Map<string, number>();
const ours = new Map<string, number>();
const keepLeast = (into: Map<string, number>, name: string, value: number): void => {
  into.set(name, Math.min(value, into.get(name) ?? Infinity));
};
for (let round = 0; round < ROUNDS; round++) {
  const rows = await launch(qemu.value);
  for (const [name, ns] of rows) keepLeast(theirs, name, ns);
  const { stdout } = await run(process.execPath, [OURS, '--json']);
  for (const [name, ns] of Object.entries(JSON.parse(stdout) as Record<string, number>))
    keepLeast(ours, name, ns);
}

const table = [...theirs.keys()].flatMap((name) => {
  // The best of all launches before anything is subtracted: the difference of two noisy figures is worth nothing.
  const peer = net(name, theirs);
  const own = ours.get(name);
  const target = TARGETS.find(([prefix]) => name.startsWith(prefix))?.[1] ?? 0;
  return own === undefined ? [] : [{ name, peer, own, ratio: peer / own, target }];
});
if (json) console.log(JSON.stringify(table));
else {
  console.log(`${'row'.padEnd(24)}${'QEMU ns'.padStart(9)}${'ours ns'.padStart(9)}${'ratio'.padStart(8)}`);
  for (const { name, peer, own, ratio, target } of table) {
    const figures = [peer.toFixed(0).padStart(9), own.toFixed(1).padStart(9), ratio.toFixed(1).padStart(8)];
    console.log(name.padEnd(24) + figures.join('') + (ratio < target ? `   below ${target}` : ''));
  }
}
