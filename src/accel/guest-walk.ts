import { OUTCOME, Transaction, Translation } from '../smmu/transaction.ts';
import type { WalkObserver } from '../smmu/walk-observer.ts';
import { EVENT_RECORD, EVENT_TYPE } from '../spec/events.ts';
import type { GuestSmmu } from './guest-smmu.ts';

const SILENT: WalkObserver = {
  structure() {},
  stage() {},
  descriptor() {},
  permissions() {},
  leaf() {},
  stopped() {},
};
/** No EventType. */
const NO_EVENT = -1;
const { F_TRANSLATION, F_PERMISSION } = EVENT_TYPE;

/** What the guest's own tables say of a transaction now: for what a host does not tell. Nothing is recorded. */
export class GuestWalk {
  readonly #transaction = new Transaction();
  readonly #result = new Translation();

  /**
   * Which of the four stage 1 faults a transaction met. A FAULT_QUEUE does not say it; the tables do, unless the guest
   * has changed them meanwhile: it is F_TRANSLATION then, or none.
   * @returns an EventType, F_TRANSLATION to F_PERMISSION; 0 if the transaction would pass.
   */
  fault(guest: GuestSmmu, transaction: Transaction): number {
    const type = this.#event(guest, transaction);
    if (type === 0) return 0;
    return type >= F_TRANSLATION && type <= F_PERMISSION ? type : F_TRANSLATION;
  }

  /** Whether the configuration of a record's stream is such that the record would be made now. */
  stillRecords(guest: GuestSmmu, record: Uint32Array): boolean {
    const transaction = this.#transaction;
    transaction.sid = EVENT_RECORD.StreamID.get(record);
    transaction.ssv = EVENT_RECORD.SSV.get(record) === 1;
    transaction.ssid = transaction.ssv ? EVENT_RECORD.SubstreamID.get(record) : 0;
    return this.#event(guest, transaction) === EVENT_RECORD.EventID.get(record);
  }

  /** @returns an EventType; 0 if the transaction passes. */
  #event(guest: GuestSmmu, transaction: Transaction): number {
    const result = this.#result;
    result.event = 0;
    if (guest.observe(transaction, result, SILENT) === OUTCOME.Ok) return 0;
    // What aborts without an event is no fault of a table.
    return result.event === 0 ? NO_EVENT : result.event;
  }
}
