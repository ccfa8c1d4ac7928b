/**
 * Plays the gaps of QEMU's accelerated SMMUv3 that take a host to show, on the real kernel, and prints a line of JSON for
 * each. `node gaps.js ADDRESS ADDRESS ADDRESS`, in the lab: two iommu-testdevs behind one SMMU, a third behind another.
 */

import { loadSyscalls } from '../../../src/sys/koffi-syscalls.ts';
import { gapsContract } from '../../contract/gaps.contract.ts';
import { casesOf } from './cases.ts';
import { labRig, vfioDevices, type LabRig } from './lab-rig.ts';
import { PhysicalSmmus } from './physical-smmus.ts';

/** What became of one case. */
export interface Played {
  readonly name: string;
  /** Why it failed, if it did. */
  readonly failure?: string;
}

const sys = await loadSyscalls();
const smmus = new PhysicalSmmus(sys);
const devices = vfioDevices(process.argv.slice(2));
const open: LabRig[] = [];
const cases = casesOf(() =>
  gapsContract(() => {
    const rig = labRig(sys, smmus, devices);
    open.push(rig);
    return rig;
  }),
);
for (const { name, run } of cases) {
  let failure: string | undefined;
  try {
    run();
  } catch (error) {
    failure = error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  for (const rig of open.splice(0)) rig.release();
  // What an earlier case set off must not reach the next one.
  smmus.settle();
  process.stdout.write(
    `${JSON.stringify({ name, ...(failure !== undefined && { failure }) } satisfies Played)}\n`,
  );
}
