/** The contract cases on the embedded host. */

import { describe } from 'vitest';
import { LAB_SMMU, SERVER_SMMU } from '../../src/host/sim/profiles.ts';
import { machine, simRig } from '../host/sim/machine.ts';
import { gapsContract } from './gaps.contract.ts';
import { hwptContract } from './hwpt.contract.ts';
import { invalidateContract } from './invalidate.contract.ts';
import { ioasContract } from './ioas.contract.ts';
import { machineryContract } from './machinery.contract.ts';
import { veventqContract } from './veventq.contract.ts';
import { vfioContract } from './vfio.contract.ts';

describe('the embedded host', () => {
  const makeRig = () => simRig();
  machineryContract(makeRig);
  ioasContract(makeRig);
  vfioContract(makeRig);
  gapsContract(makeRig);
});

describe.each([
  ['like QEMU’s', LAB_SMMU],
  ['of a server', SERVER_SMMU],
] as const)('the embedded host with an SMMU %s', (_, ids) => {
  const makeRig = () => simRig(machine({ ids }));
  hwptContract(makeRig);
  invalidateContract(makeRig);
  veventqContract(makeRig);
});
