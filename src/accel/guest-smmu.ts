/** The SMMU that the guest sees, as far as the accelerator needs it, and what its registers ask of the host. */

import type { IdRegisters } from '../smmu/identification.ts';
import type { PageRequest, PageRequestStatus } from '../smmu/page-request.ts';
import type { Outcome, Transaction, Translation } from '../smmu/transaction.ts';
import type { WalkObserver } from '../smmu/walk-observer.ts';
import { CR2, EVENTQ_BASE, IDR0, IDR1, IDR3, IDR5, OFFSET } from '../spec/registers.ts';
import type { CommandLimits } from './canonical.ts';
import type { DesiredQueue, GuestState } from './desired.ts';
import type { EventSink } from './event-bridge.ts';

/** {@link import('../smmu/smmu.ts').Smmu} is one. */
export interface GuestSmmu extends EventSink {
  readonly smmuEnabled: boolean;
  readonly gbpaAbort: boolean;
  readonly eventqEnabled: boolean;
  /** Effective log2 of the entries of the event queue. */
  readonly eventqLog2Size: number;
  /** CR0.PRIQEN and SMMUEN. */
  readonly priqEnabled: boolean;
  /** Page 0, word by word. */
  readonly registers: Uint32Array;
  /**
   * @param into receives the STE; after F_STE_FETCH the first two words are the address that could not be read.
   * @returns 0 if the STE is valid, else the EventType that using it would raise.
   */
  lookupSte(sid: number, into: Uint32Array): number;
  /** See {@link import('../smmu/smmu.ts').Smmu.observe}. */
  observe(transaction: Transaction, result: Translation, observer: WalkObserver): Outcome;
  /** See {@link import('../smmu/smmu.ts').Smmu.pageRequest}. */
  pageRequest(request: PageRequest): PageRequestStatus;
}

const EVENTQ_BASE_WORD = OFFSET.EVENTQ_BASE >>> 2;
const PRIQ_BASE_WORD = OFFSET.PRIQ_BASE >>> 2;
const CR2_WORD = OFFSET.CR2 >>> 2;

/** What the registers say now. */
export function readGuest(guest: GuestSmmu): GuestState {
  const { smmuEnabled, gbpaAbort, eventqEnabled, eventqLog2Size, priqEnabled, registers } = guest;
  return {
    smmuEnabled,
    gbpaAbort,
    eventqEnabled,
    eventqLog2Size,
    recordsBadStreamId: CR2.RECINVSID.get(registers, CR2_WORD) !== 0,
    eventqBaseHi: EVENTQ_BASE.ADDR.getHi(registers, EVENTQ_BASE_WORD),
    eventqBaseLo: EVENTQ_BASE.ADDR.getLo(registers, EVENTQ_BASE_WORD),
    priqEnabled,
    priqBaseHi: registers[PRIQ_BASE_WORD + 1],
    priqBaseLo: registers[PRIQ_BASE_WORD],
  };
}

/** Whether the event queue is still the one that `queue` was made for. Called for each record that the guest consumes. */
export function isQueueOf({ eventqLog2Size, registers }: GuestSmmu, queue: DesiredQueue): boolean {
  return (
    queue.log2Size === eventqLog2Size &&
    queue.baseHi === EVENTQ_BASE.ADDR.getHi(registers, EVENTQ_BASE_WORD) &&
    queue.baseLo === EVENTQ_BASE.ADDR.getLo(registers, EVENTQ_BASE_WORD)
  );
}

/** What the guest was told that bears on its commands. */
export const commandLimits = (ids: IdRegisters): CommandLimits => ({
  ril: IDR3.RIL.of(ids.IDR3) !== 0,
  ds: IDR5.DS.of(ids.IDR5) !== 0,
  asid16: IDR0.ASID16.of(ids.IDR0) !== 0,
  ats: IDR0.ATS.of(ids.IDR0) !== 0,
  substreams: IDR1.SSIDSIZE.of(ids.IDR1) !== 0,
});
