/** Throwing out everything that may be cached of a guest's stage 1, when the guest itself does not know that it must. */

import { HostError } from '../iommufd/errors.ts';
import type { Errno } from '../iommufd/kernel.ts';
import { INVALIDATE_CAPACITY, type Viommu } from '../iommufd/viommu.ts';
import { CMD_CFGI_CD_ALL, COMMAND, COMMAND_WORDS, OPCODE } from '../spec/commands.ts';
import type { Actual } from './actual.ts';

/** Sends what is in `viommu.commands`, twice on hardware that needs it. */
export function sendCommands(actual: Actual, viommu: Viommu, count: number): Errno {
  const errno = viommu.invalidate(count);
  return errno === 0 && actual.repeatTlbiCfgi ? viommu.invalidate(count) : errno;
}

/**
 * Does the flushes that are due: everything of the vIOMMU if `flushAll`, and the CDs of streams that are new under
 * their StreamID. No stream with a flush due translates meanwhile.
 * @throws HostError; the flushes are then still due.
 */
export function flushCaches(actual: Actual): void {
  const viommu = actual.viommu!;
  const { commands } = viommu;
  let count = 0;
  const send = (): void => {
    if (count === 0) return;
    const errno = sendCommands(actual, viommu, count);
    if (errno !== 0) throw HostError.of(errno, 'IOMMU_HWPT_INVALIDATE');
    count = 0;
  };
  commands.fill(0);
  if (actual.flushAll) COMMAND.Opcode.set(commands, OPCODE.CMD_TLBI_NSNH_ALL, COMMAND_WORDS * count++);
  for (const { vdevice, flush } of actual.streams.values()) {
    if (vdevice === undefined || !(flush || actual.flushAll)) continue;
    if (count === INVALIDATE_CAPACITY) send();
    putCfgiCdAll(commands, count++, vdevice.vsid);
  }
  send();
  actual.flushAll = false;
  for (const stream of actual.streams.values()) if (stream.vdevice !== undefined) stream.flush = false;
}

/** Writes a CMD_CFGI_CD_ALL as command `index`. */
export function putCfgiCdAll(commands: Uint32Array, index: number, vsid: number): void {
  const at = COMMAND_WORDS * index;
  commands.fill(0, at, at + COMMAND_WORDS);
  COMMAND.Opcode.set(commands, OPCODE.CMD_CFGI_CD_ALL, at);
  CMD_CFGI_CD_ALL.StreamID.set(commands, vsid, at);
}
