/**
 * What each action of docs/ioctls.md costs on the real kernel. Prints one line of JSON. `node costs.js ADDRESS ADDRESS`, in
 * the lab: two iommu-testdevs behind one SMMU.
 */

import { loadSyscalls } from '../../../src/sys/koffi-syscalls.ts';
import { ACTIONS, costOf, type Cost } from '../../contract/costs.ts';
import { labRig, vfioDevices } from './lab-rig.ts';
import { PhysicalSmmus } from './physical-smmus.ts';

const sys = await loadSyscalls();
const smmus = new PhysicalSmmus(sys);
const devices = vfioDevices(process.argv.slice(2));
const costs: Record<string, Cost> = {};
for (const action of Object.keys(ACTIONS)) {
  const rig = labRig(sys, smmus, devices);
  costs[action] = costOf(rig, action);
  rig.release();
  smmus.settle();
}
process.stdout.write(`${JSON.stringify(costs)}\n`);
