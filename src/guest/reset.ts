/**
 * Bringing the device up: the register writes of Linux's probe, in its order. Each change of CR0 and IRQ_CTRL waits for
 * its acknowledgement.
 */

import { OPCODE } from '../spec/commands.ts';
import { CACHEABILITY, SHAREABILITY } from '../spec/cd.ts';
import { CMDQ_BASE, CR0, CR1, CR2, GBPA, IRQ_CFG0, IRQ_CTRL, OFFSET } from '../spec/registers.ts';
import { hex32, hiOfNumber, loOfNumber } from '../bits/u64.ts';
import { cfgiAll, command } from './commands.ts';
import type { CommandQueue } from './command-queue.ts';
import { GuestDriverError } from './errors.ts';
import type { Features } from './identification.ts';
import type { KernelLog } from './kernel-log.ts';
import type { OutputQueue } from './output-queue.ts';
import type { RegisterPort } from './register-port.ts';
import type { StreamTable } from './stream-table.ts';

/** Interrupts as messages: where to write what. Written data tells the vectors apart. */
export interface MsiDoorbell {
  readonly address: number;
  readonly eventq: number;
  readonly gerror: number;
  readonly priq: number;
}

export interface DeviceParts {
  readonly port: RegisterPort;
  readonly log: KernelLog;
  readonly features: Features;
  readonly streamTable: StreamTable;
  readonly commands: CommandQueue;
  readonly eventQueue: OutputQueue;
  readonly priQueue: OutputQueue | undefined;
  readonly doorbell: MsiDoorbell | undefined;
  /** A kernel that saves the memory of a crashed one: old DMA still runs, and its events are not wanted. */
  readonly kdump: boolean;
}

/** Writes CR0 or IRQ_CTRL and polls the register behind it, its ACK. @throws GuestDriverError GUEST_ACK_TIMEOUT. */
export function writeAcknowledged(
  port: RegisterPort,
  log: KernelLog,
  offset: number,
  value: number,
  what: string,
): void {
  port.write(offset, value);
  if (port.poll(() => port.read(offset + 4) === value)) return;
  log.warn(`failed to ${what}`);
  throw new GuestDriverError(
    'GUEST_ACK_TIMEOUT',
    `Register ${hex32(offset + 4)} did not become ${hex32(value)}: the driver failed to ${what}`,
  );
}

/** CR0 := 0: translation, queues and all. */
export const disableDevice = (port: RegisterPort, log: KernelLog): void =>
  writeAcknowledged(port, log, OFFSET.CR0, 0, 'clear cr0');

/** Makes the SMMU abort what comes while it is off. @throws GuestDriverError GUEST_GBPA_TIMEOUT. */
function abortWhileOff(port: RegisterPort, log: KernelLog): void {
  let value = 0;
  const settled = (): boolean => {
    value = port.read(OFFSET.GBPA);
    return GBPA.UPDATE.of(value) === 0;
  };
  if (port.poll(settled)) {
    port.write(OFFSET.GBPA, value | GBPA.ABORT.inPlace | GBPA.UPDATE.inPlace);
    if (port.poll(settled)) return;
  }
  log.warn('GBPA not responding to update');
  throw new GuestDriverError('GUEST_GBPA_TIMEOUT', 'GBPA.UPDATE stays set');
}

const CR1_VALUE =
  CR1.TABLE_SH.put(SHAREABILITY.Inner) |
  CR1.TABLE_OC.put(CACHEABILITY.WriteBackWriteAllocate) |
  CR1.TABLE_IC.put(CACHEABILITY.WriteBackWriteAllocate) |
  CR1.QUEUE_SH.put(SHAREABILITY.Inner) |
  CR1.QUEUE_OC.put(CACHEABILITY.WriteBackWriteAllocate) |
  CR1.QUEUE_IC.put(CACHEABILITY.WriteBackWriteAllocate);

/** A queue's BASE register, with the allocation hint. */
function writeQueueBase(port: RegisterPort, offset: number, queue: { base: number; log2Size: number }): void {
  const words = new Uint32Array(2);
  CMDQ_BASE.ADDR.set(words, hiOfNumber(queue.base), loOfNumber(queue.base));
  CMDQ_BASE.LOG2SIZE.set(words, queue.log2Size);
  CMDQ_BASE.RA.set(words, 1);
  port.write64(offset, words[1], words[0]);
}

/** Points the device at an event queue and empties it. EVENTQEN must be 0. */
export function writeEventQueue(port: RegisterPort, queue: { base: number; log2Size: number }): void {
  writeQueueBase(port, OFFSET.EVENTQ_BASE, queue);
  port.write(OFFSET.EVENTQ_PROD, 0);
  port.write(OFFSET.EVENTQ_CONS, 0);
}

/**
 * Takes the device from any state to translating.
 * @param listen called when interrupts may come from now on, before they are enabled.
 * @returns what CR0 is now.
 * @throws GuestDriverError GUEST_ACK_TIMEOUT, GUEST_GBPA_TIMEOUT, GUEST_CMDQ_TIMEOUT or GUEST_SYNC_TIMEOUT; the device
 *   is left as far as it got.
 */
export function resetDevice(parts: DeviceParts, listen: () => void): number {
  const { port, log, features, commands } = parts;
  if (CR0.SMMUEN.of(port.read(OFFSET.CR0)) === 1) {
    log.warn('SMMU currently enabled! Resetting...');
    abortWhileOff(port, log);
  }
  disableDevice(port, log);

  port.write(OFFSET.CR1, CR1_VALUE);
  port.write(OFFSET.CR2, CR2.PTM.inPlace | CR2.RECINVSID.inPlace | (features.e2h ? CR2.E2H.inPlace : 0));
  port.write64(OFFSET.STRTAB_BASE, parts.streamTable.baseHi, parts.streamTable.baseLo);
  port.write(OFFSET.STRTAB_BASE_CFG, parts.streamTable.config);

  writeQueueBase(port, OFFSET.CMDQ_BASE, commands);
  port.write(OFFSET.CMDQ_PROD, 0);
  port.write(OFFSET.CMDQ_CONS, 0);
  let cr0 = CR0.CMDQEN.inPlace;
  const enable = (bit: number, what: string): void => {
    cr0 |= bit;
    writeAcknowledged(port, log, OFFSET.CR0, cr0, `enable ${what}`);
  };
  enable(CR0.CMDQEN.inPlace, 'command queue');

  // Whatever was cached is someone else's.
  commands.issueAndSync(cfgiAll());
  if (features.hyp) commands.issueAndSync(command(OPCODE.CMD_TLBI_EL2_ALL));
  commands.issueAndSync(command(OPCODE.CMD_TLBI_NSNH_ALL));

  writeEventQueue(port, parts.eventQueue);
  enable(CR0.EVENTQEN.inPlace, 'event queue');
  if (parts.priQueue !== undefined) {
    writeQueueBase(port, OFFSET.PRIQ_BASE, parts.priQueue);
    port.write(OFFSET.PRIQ_PROD, 0);
    port.write(OFFSET.PRIQ_CONS, 0);
    enable(CR0.PRIQEN.inPlace, 'PRI queue');
  }
  if (features.ats) enable(CR0.ATSCHK.inPlace, 'ATS check');

  setUpInterrupts(parts, listen);

  if (parts.kdump) cr0 &= ~(CR0.EVENTQEN.inPlace | CR0.PRIQEN.inPlace);
  enable(CR0.SMMUEN.inPlace, 'SMMU interface');
  return cr0;
}

/** Memory attributes of an MSI: Device-nGnRE. */
const MSI_DEVICE = 0x1;

function setUpInterrupts(parts: DeviceParts, listen: () => void): void {
  const { port, log, features } = parts;
  writeAcknowledged(port, log, OFFSET.IRQ_CTRL, 0, 'disable irqs');
  // An address of 0 means no message: what an earlier owner left must not be written to.
  port.write64(OFFSET.GERROR_IRQ_CFG0, 0, 0);
  port.write64(OFFSET.EVENTQ_IRQ_CFG0, 0, 0);
  if (parts.priQueue !== undefined) port.write64(OFFSET.PRIQ_IRQ_CFG0, 0, 0);
  if (features.msi && parts.doorbell === undefined)
    log.info('msi_domain absent - falling back to wired irqs');
  if (features.msi && parts.doorbell !== undefined) {
    const { address, eventq, gerror, priq } = parts.doorbell;
    const vector = (cfg0: number, cfg1: number, cfg2: number, data: number): void => {
      const words = new Uint32Array(2);
      IRQ_CFG0.ADDR.set(words, hiOfNumber(address), loOfNumber(address));
      port.write64(cfg0, words[1], words[0]);
      port.write(cfg1, data);
      port.write(cfg2, MSI_DEVICE);
    };
    vector(OFFSET.EVENTQ_IRQ_CFG0, OFFSET.EVENTQ_IRQ_CFG1, OFFSET.EVENTQ_IRQ_CFG2, eventq);
    vector(OFFSET.GERROR_IRQ_CFG0, OFFSET.GERROR_IRQ_CFG1, OFFSET.GERROR_IRQ_CFG2, gerror);
    if (parts.priQueue !== undefined)
      vector(OFFSET.PRIQ_IRQ_CFG0, OFFSET.PRIQ_IRQ_CFG1, OFFSET.PRIQ_IRQ_CFG2, priq);
  }
  listen();
  const irqs =
    IRQ_CTRL.GERROR_IRQEN.inPlace |
    IRQ_CTRL.EVENTQ_IRQEN.inPlace |
    (parts.priQueue === undefined ? 0 : IRQ_CTRL.PRIQ_IRQEN.inPlace);
  writeAcknowledged(port, log, OFFSET.IRQ_CTRL, irqs, 'enable irqs');
}
