/**
 * The guest's invalidations on the host: one HWPT_INVALIDATE for all between two CMD_SYNCs. Whatever the host answers,
 * nothing stale can be used afterwards: a failed call is followed by a wider one, and that by an abort of the streams.
 */

import { ERRNO } from '../iommufd/uapi/errno.ts';
import { INVALIDATE_CAPACITY } from '../iommufd/viommu.ts';
import { INVALIDATE, type CommandBatch, type InvalidateStatus } from '../smmu/ports.ts';
import { COMMAND, COMMAND_WORDS, OPCODE } from '../spec/commands.ts';
import { STE, STE_EATS } from '../spec/ste.ts';
import type { Actual, ActualStream } from './actual.ts';
import {
  canonicalise,
  COMMAND_KIND,
  commandKind,
  commandSid,
  type CommandKind,
  type CommandLimits,
} from './canonical.ts';
import { putCfgiCdAll, sendCommands } from './flush.ts';

/** What was done, for people. */
export interface InvalidationCounters {
  /** Commands that went to the host. */
  sent: number;
  /** Commands that name nothing on the host, or that it has no use for. */
  skipped: number;
  /** Batches that the host did not carry out at first. */
  failed: number;
  /** Times that everything was invalidated instead. */
  resynced: number;
  /** Times that even this failed, and all streams were aborted. */
  abandoned: number;
  /** ATC_INV that an endpoint did not answer. */
  atcTimeouts: number;
}

/** Which commands of a batch to collect. */
const ALL = (): boolean => true;
const NOT_ATC = (kind: CommandKind): boolean => kind !== COMMAND_KIND.Atc;
const ONLY_ATC = (kind: CommandKind): boolean => kind === COMMAND_KIND.Atc;

export class Invalidator {
  readonly counters: InvalidationCounters = {
    sent: 0,
    skipped: 0,
    failed: 0,
    resynced: 0,
    abandoned: 0,
    atcTimeouts: 0,
  };
  /** What the guest was told; it may change until the guest looks. */
  limits: CommandLimits;
  readonly #actual: Actual;
  readonly #abandon: () => void;
  /** Streams whose CDs are dropped by what was collected last. */
  readonly #due: ActualStream[] = [];

  /** @param abandon takes every stream off its translation, and flushes before any gets it back. */
  constructor(actual: Actual, limits: CommandLimits, abandon: () => void) {
    this.#actual = actual;
    this.limits = limits;
    this.#abandon = abandon;
  }

  /**
   * 4.3.1: CFGI_STE drops the CDs as well. Where the STE turns out to be another one its installation does that; for the
   * others it is due at the next CMD_SYNC, if they can have changed.
   */
  dropCds(firstSid: number, lastSid: number): void {
    const { space, streams } = this.#actual;
    for (const stream of streams.values()) {
      const { vdevice, table, cd } = stream;
      if (vdevice === undefined || vdevice.vsid < firstSid || vdevice.vsid > lastSid) continue;
      if (table?.target.kind === 'translate' && !cd.isSame(space, table.target)) stream.cdsDue = true;
    }
  }

  /** CDs of a stream that translates have to be dropped at the next CMD_SYNC, whatever else is. */
  get isDue(): boolean {
    return this.#countDue() > 0;
  }

  #countDue(): number {
    let count = 0;
    for (const stream of this.#actual.streams.values()) if (areCdsDue(stream)) count++;
    return count;
  }

  /** See {@link import('../smmu/ports.ts').StreamBackend.invalidate}. CDs that are due go before the batch. */
  invalidate(batch: CommandBatch): InvalidateStatus {
    let status: InvalidateStatus = INVALIDATE.Complete;
    let due = this.#countDue();
    for (let first = 0; first < batch.count || due > 0; due = this.#countDue()) {
      // A flush that is due covers all of it, and until it is done nothing translates.
      if (this.#actual.viommu === undefined || this.#actual.flushAll) return status;
      const last = Math.min(first + Math.max(INVALIDATE_CAPACITY - due, 0), batch.count);
      if (this.#piece(batch, first, last) !== INVALIDATE.Complete) status = INVALIDATE.AtcInvTimeout;
      first = last;
    }
    return status;
  }

  #piece(batch: CommandBatch, first: number, last: number): InvalidateStatus {
    // Erratum REPEAT_TLBI_CFGI is of TLBI and CFGI: an ATC_INV goes once, after both rounds, for its endpoint may be slow.
    let errno = 0;
    if (this.#actual.repeatTlbiCfgi) errno = this.#sendOnce(this.#collect(batch, first, last, NOT_ATC));
    const count = this.#collect(batch, first, last, ALL);
    this.counters.skipped += last - first - (count - this.#due.length);
    if (errno === 0) errno = this.#sendOnce(count);
    let status: InvalidateStatus = INVALIDATE.Complete;
    if (errno === 0) this.counters.sent += count;
    else {
      this.counters.failed++;
      status = this.#recover(batch, first, last, errno);
    }
    // Done, or done by other means.
    for (const stream of this.#due) stream.cdsDue = false;
    return status;
  }

  /** Canonical commands into the vIOMMU's buffer. @returns how many. */
  #collect(batch: CommandBatch, first: number, last: number, wanted: (kind: CommandKind) => boolean): number {
    const { commands } = this.#actual.viommu!;
    let count = 0;
    if (wanted(COMMAND_KIND.Cfgi)) {
      this.#due.length = 0;
      for (const stream of this.#actual.streams.values()) {
        if (!areCdsDue(stream) || count === INVALIDATE_CAPACITY) continue;
        this.#due.push(stream);
        this.#dropsCds(stream);
        putCfgiCdAll(commands, count++, stream.vdevice!.vsid);
      }
    }
    for (let i = first; i < last; i++) {
      const at = i * COMMAND_WORDS;
      const kind = commandKind(batch.words, at);
      if (!wanted(kind) || !this.#concerns(kind, batch.words, at)) continue;
      if (kind === COMMAND_KIND.Cfgi) this.#dropsCds(this.#actual.streamOf(commandSid(batch.words, at))!);
      if (canonicalise(batch.words, at, commands, count * COMMAND_WORDS, this.limits)) count++;
    }
    return count;
  }

  /** A command that is about to go to the host drops a CD of a stream that translates, or all. */
  #dropsCds({ cd, table }: ActualStream): void {
    cd.look(this.#actual.space, table!.target);
  }

  /** Whether the host can have cached what the command names. The kernel knows a StreamID only by its vDEVICE. */
  #concerns(kind: CommandKind, words: Uint32Array, at: number): boolean {
    if (kind === COMMAND_KIND.Tlbi) return true;
    if (kind === COMMAND_KIND.None) return false;
    const stream = this.#actual.streamOf(commandSid(words, at));
    if (stream?.table === undefined) return false;
    // 4.3.1: installing another STE drops the CDs, so they are cached only while the stream translates.
    return kind === COMMAND_KIND.Cfgi ? stream.table.target.kind === 'translate' : mayCacheAts(stream);
  }

  /** As often as the hardware needs it. @returns an errno; 0 also for nothing to send. */
  #send(count: number): number {
    return count === 0 ? 0 : sendCommands(this.#actual, this.#actual.viommu!, count);
  }

  #sendOnce(count: number): number {
    return count === 0 ? 0 : this.#actual.viommu!.invalidate(count);
  }

  /**
   * After a failure nothing is known of any entry: the kernel reports the entry that it stopped at, but has not issued
   * those since its last full batch of 63, and after a timeout reports one from elsewhere.
   */
  #recover(batch: CommandBatch, first: number, last: number, errno: number): InvalidateStatus {
    // A refused entry would be refused again. Otherwise, apart from endpoints that may not answer, it may work now.
    const again = errno !== ERRNO.EIO && this.#send(this.#collect(batch, first, last, NOT_ATC)) === 0;
    if (!again && !this.#resync()) {
      this.#giveUp();
      return INVALIDATE.Complete;
    }
    const atc = this.#sendOnce(this.#collect(batch, first, last, ONLY_ATC));
    if (atc === 0) return INVALIDATE.Complete;
    if (atc === ERRNO.ETIMEDOUT) {
      // 4.7.3: the guest learns of it at the CMD_SYNC, and decides what becomes of the device.
      this.counters.atcTimeouts++;
      return INVALIDATE.AtcInvTimeout;
    }
    // Attaching the abort table disables ATS, for which the kernel itself empties the device's cache.
    this.#giveUp();
    return INVALIDATE.Complete;
  }

  /** Invalidates all of the guest's stage 1 and CDs. @returns whether that worked. */
  #resync(): boolean {
    this.counters.resynced++;
    const { commands } = this.#actual.viommu!;
    commands.fill(0, 0, COMMAND_WORDS);
    COMMAND.Opcode.set(commands, OPCODE.CMD_TLBI_NH_ALL);
    let count = 1;
    for (const stream of this.#actual.streams.values()) {
      const { vdevice, table } = stream;
      if (vdevice === undefined || table?.target.kind !== 'translate') continue;
      this.#dropsCds(stream);
      if (count === INVALIDATE_CAPACITY) {
        if (this.#send(count) !== 0) return false;
        count = 0;
      }
      putCfgiCdAll(commands, count++, vdevice.vsid);
    }
    return this.#send(count) === 0;
  }

  #giveUp(): void {
    this.counters.abandoned++;
    this.#abandon();
  }
}

const areCdsDue = ({ cdsDue, vdevice, table }: ActualStream): boolean =>
  cdsDue && vdevice !== undefined && table?.target.kind === 'translate';

/** The device may hold translations of its own: the kernel enables ATS for a bypass, and for a guest that asks for it. */
function mayCacheAts(stream: ActualStream): boolean {
  if (!stream.host.ats || stream.table === undefined) return false;
  const { kind, ste } = stream.table.target;
  if (kind === 'translate') return STE.EATS.of(ste[STE.EATS.word]) === STE_EATS.Full;
  return kind === 'bypass';
}
