/**
 * Runs the contract cases and the ground truth on one kernel, and prints a line of JSON for each: what was called, and
 * what was answered. `node contract.js sim`, anywhere; or `node contract.js linux ADDRESS ADDRESS ADDRESS`, in the lab.
 */

import { loadSyscalls } from '../../../src/sys/koffi-syscalls.ts';
import { GroundTruth } from '../../contract/ground-truth.ts';
import { hwptContract } from '../../contract/hwpt.contract.ts';
import { invalidateContract } from '../../contract/invalidate.contract.ts';
import { ioasContract } from '../../contract/ioas.contract.ts';
import { machineryContract } from '../../contract/machinery.contract.ts';
import type { Rig } from '../../contract/rig.ts';
import { veventqContract } from '../../contract/veventq.contract.ts';
import { vfioContract } from '../../contract/vfio.contract.ts';
import { simRig } from '../../host/sim/machine.ts';
import { casesOf } from './cases.ts';
import { recorded } from './recorder.ts';

/** What one case did. */
export interface Recorded {
  readonly name: string;
  readonly lines: readonly string[];
  /** Why it failed, if it did. */
  readonly failure?: string;
}

const SUITES = {
  hwptContract,
  invalidateContract,
  ioasContract,
  machineryContract,
  veventqContract,
  vfioContract,
};

interface Releasable extends Rig {
  release?(): void;
}

async function rigMaker(host: string | undefined, addresses: readonly string[]): Promise<() => Releasable> {
  if (host === 'sim') return () => simRig();
  // Only the lab has what these need.
  const { fillDescriptors, labRig, vfioDevices } = await import('./lab-rig.ts');
  const { PhysicalSmmus } = await import('./physical-smmus.ts');
  const sys = await loadSyscalls();
  const smmus = new PhysicalSmmus(sys);
  const devices = vfioDevices(addresses);
  fillDescriptors();
  return () => labRig(sys, smmus, devices);
}

const [host, ...addresses] = process.argv.slice(2);
const makeRig = await rigMaker(host, addresses);

let lines: string[] = [];
const open: Releasable[] = [];
const newRig = (): Rig => {
  const rig = makeRig();
  open.push(rig);
  return { ...rig, kernel: recorded(rig.kernel, (line) => lines.push(line)) };
};

const print = (result: Recorded): void => void process.stdout.write(`${JSON.stringify(result)}\n`);

/** Runs something on rigs of its own. */
function record(name: string, run: () => void): void {
  lines = [];
  let failure: string | undefined;
  try {
    run();
  } catch (error) {
    failure = error instanceof Error ? error.message : String(error);
  }
  for (const rig of open.splice(0)) rig.release?.();
  print({ name, lines, ...(failure !== undefined && { failure }) });
}

const steps: string[] = [];
record('ground truth', () => {
  for (const { result, detail, records = [] } of new GroundTruth(newRig()).run())
    steps.push([result, detail, ...records].join(' | '));
});
print({ name: 'the 268 lines', lines: steps });
for (const [suite, define] of Object.entries(SUITES)) {
  const cases = casesOf(() => define(newRig));
  for (const { name, run } of cases) record(`${suite}: ${name}`, run);
}
