/**
 * Brings the host from what exists to what should. The one place that calls allocating iommufd operations. Running it
 * again without a change makes no call. An operation that fails leaves a recorded reason and no device with more access
 * than it should have; the next run tries again.
 */

import { HostError } from '../iommufd/errors.ts';
import { FaultQueue } from '../iommufd/fault-queue.ts';
import { Hwpt } from '../iommufd/hwpt.ts';
import { Vdevice } from '../iommufd/vdevice.ts';
import { Veventq } from '../iommufd/veventq.ts';
import { Viommu } from '../iommufd/viommu.ts';
import type { Actual, ActualStream, Concern, NestedTable } from './actual.ts';
import { ABORT, type Desired, type DesiredQueue, type DesiredStream, type Target } from './desired.ts';
import { flushCaches } from './flush.ts';
import { tripwire } from './tripwire.ts';

/** Does not throw: what the host refused is in `actual.failures`. */
export function reconcile(actual: Actual, desired: Desired): void {
  actual.failures.clear();
  bury(actual);
  if (actual.queue !== undefined && !sameQueue(actual.queue.wanted, desired.veventq)) closeQueue(actual);
  closeFaultQueues(actual, desired);

  const wanted = new Map(desired.streams.map((stream) => [stream.name, stream]));
  for (const stream of actual.streams.values()) if (!wanted.has(stream.name)) withdraw(actual, stream);
  if (!desired.viommu) {
    dismantle(actual);
    return;
  }
  // Without a vIOMMU no device is attached to anything: all are isolated, and nothing more can be done now.
  if (!found(actual)) return;

  const streams: Pair[] = [];
  for (const stream of actual.streams.values()) streams.push([stream, wanted.get(stream.name)!]);
  settleVsids(actual, streams);
  if (desired.veventq !== undefined && actual.queue === undefined) openQueue(actual, desired.veventq);
  actual.reader.share(streams.length);
  openFaultQueues(actual, desired);

  // Streams that lose their translation go first: the flush must find nobody who could fill the caches again.
  for (const [stream, want] of streams) {
    if (!fetchesCds(want.target)) settle(actual, stream, want);
    else if (actual.flushAll && fetchesCds(stream.table?.target)) park(actual, stream);
  }
  const flushed = attempt(actual, 'flush', () => flush(actual));
  for (const [stream, want] of streams) {
    if (!fetchesCds(want.target)) continue;
    if (flushed || !(actual.flushAll || stream.flush)) settle(actual, stream, want);
    else park(actual, stream);
  }
  freeTables(actual);
  freeFaultQueues(actual);
}

function flush(actual: Actual): void {
  const due = actual.flushAll || [...actual.streams.values()].some((stream) => stream.flush);
  if (!due) actual.timedOut = undefined;
  if (actual.timedOut !== undefined) throw actual.timedOut;
  try {
    flushCaches(actual);
  } catch (error) {
    if (error instanceof HostError && error.code === 'ETIMEDOUT') actual.timedOut = error;
    throw error;
  }
}

/** Whether the hardware reads context descriptors, and may have them cached, for a stream with this target. */
const fetchesCds = (target: Target | undefined): boolean =>
  target?.kind === 'translate' || target?.kind === 'tripwire';

type Pair = readonly [ActualStream, DesiredStream];

/** Runs one step. @returns false if the host refused; the first reason for each concern is kept. */
function attempt(actual: Actual, concern: Concern, step: () => void): boolean {
  try {
    step();
    return true;
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (!actual.failures.has(concern)) actual.failures.set(concern, error);
    return false;
  }
}

const about = (stream: ActualStream): Concern => `device ${stream.name}`;

/** The address space, stage 2, the vIOMMU, and the table on which a stream is parked. */
function found(actual: Actual): boolean {
  const { space } = actual;
  if (actual.viommu !== undefined && actual.tables.has(ABORT.key)) return true;
  return attempt(actual, 'foundation', () => {
    const [first] = actual.streams.values();
    const { devid } = first.vfio;
    const ioas = space.requireIoas();
    actual.parent ??= Hwpt.allocNestParent(space.iommufd, devid, ioas.id);
    if (actual.viommu === undefined) {
      actual.viommu = Viommu.alloc(space.iommufd, devid, actual.parent.id);
      actual.repeatTlbiCfgi = first.host.repeatTlbiCfgi;
      actual.flushAll = true;
    }
    table(actual, first, ABORT);
  });
}

/** The key of the table for a target. A table is made with its FAULT_QUEUE, or without. */
function tableKey(actual: Actual, target: Target): string {
  const faults = actual.faultQueueOf(target);
  return faults === undefined ? target.key : `${target.key} ${faults.id}`;
}

/** The nested table for a target, made if there is none. */
function table(actual: Actual, stream: ActualStream, target: Target): NestedTable {
  const key = tableKey(actual, target);
  const found = actual.tables.get(key);
  if (found !== undefined) return found;
  if (target.kind === 'tripwire') actual.space.requireTripwire();
  const { iommufd } = actual.space;
  const faultId = actual.faultQueueOf(target)?.id;
  const hwpt = Hwpt.allocNested(iommufd, stream.vfio.devid, actual.viommu!.id, target.ste, faultId);
  const made = { target, key, hwpt };
  actual.tables.set(key, made);
  return made;
}

/** Gives every stream a vDEVICE with its StreamID. All old ones go before any new one comes: StreamIDs may be swapped. */
function settleVsids(actual: Actual, streams: readonly Pair[]): void {
  for (const [stream, want] of streams) {
    const { vdevice } = stream;
    if (vdevice === undefined || vdevice.vsid === want.vsid) continue;
    // A translating stream without a vDEVICE would go on, with events under its old StreamID.
    if (fetchesCds(stream.table?.target)) park(actual, stream);
    if (attempt(actual, about(stream), () => destroy(vdevice))) actual.setVdevice(stream, undefined);
  }
  for (const [stream, { vsid }] of streams) {
    if (vsid === undefined || stream.vdevice !== undefined) continue;
    attempt(actual, about(stream), () => {
      const { devid } = stream.vfio;
      actual.setVdevice(stream, Vdevice.alloc(actual.space.iommufd, actual.viommu!.id, devid, vsid));
      stream.flush = true;
    });
  }
}

/** Attaches a stream to its target, or leaves it where it cannot do harm. */
function settle(actual: Actual, stream: ActualStream, want: DesiredStream): void {
  const { vsid, target } = want;
  if (target.kind === 'tripwire') stream.due = want;
  if (fetchesCds(target) && stream.vdevice?.vsid !== vsid) {
    park(actual, stream);
    return;
  }
  if (stream.table?.key === tableKey(actual, target)) {
    // The kernel notes the vSID when it attaches, and attaching the same table again does nothing: another one has to
    // come in between. An abort makes no events, so it need not know.
    if (target.kind === 'abort' || stream.notedVsid === stream.vdevice?.vsid) return;
    park(actual, stream);
  }
  // Replaced in one step: a translation that is swapped for another is never aborted in between. If that fails, the old
  // one may not stay either: after its CMD_SYNC the guest may give the old tables' memory to anyone
  // (docs/decisions/0001-a-failed-replace-aborts.md).
  if (!attempt(actual, about(stream), () => attach(actual, stream, table(actual, stream, target))))
    park(actual, stream);
}

function attach(actual: Actual, stream: ActualStream, to: NestedTable): void {
  stream.cd.look(actual.space, to.target);
  stream.vfio.attach(to.hwpt.id);
  // 4.3.1: the kernel has told the hardware of another STE, which drops its CDs.
  stream.cdsDue = false;
  actual.forgetFaults(stream);
  stream.table = to;
  stream.notedVsid = stream.vdevice?.vsid;
}

/** Takes all access from a stream: on the abort table, or detached if even that fails. */
function park(actual: Actual, stream: ActualStream): void {
  const abort = actual.tables.get(ABORT.key);
  if (abort !== undefined && stream.table === abort) return;
  if (abort === undefined || !attempt(actual, about(stream), () => attach(actual, stream, abort)))
    detach(actual, stream);
}

function detach(actual: Actual, stream: ActualStream): void {
  if (stream.table === undefined) return;
  if (!attempt(actual, about(stream), () => stream.vfio.detach())) return;
  actual.forgetFaults(stream);
  stream.table = undefined;
  stream.notedVsid = undefined;
}

/** Gives a device back. Closing its file detaches it and ends its vDEVICE, so this cannot fail. */
function withdraw(actual: Actual, stream: ActualStream): void {
  detach(actual, stream);
  const { vdevice } = stream;
  if (vdevice !== undefined) attempt(actual, about(stream), () => destroy(vdevice));
  actual.setVdevice(stream, undefined);
  stream.vfio.close();
  actual.forgetFaults(stream);
  actual.streams.delete(stream.name);
  freeTables(actual);
}

/**
 * Destroys tables that translate for nobody. The abort and bypass tables and the tripwire stay as long as the vIOMMU,
 * but not a tripwire whose page of zeros has moved.
 */
function freeTables(actual: Actual): void {
  const used = new Set<NestedTable | undefined>();
  for (const stream of actual.streams.values()) used.add(stream.table);
  const { tripwireGpa } = actual.space;
  const tripwireKey = tripwireGpa === undefined ? undefined : tripwire(tripwireGpa).key;
  for (const [key, unused] of actual.tables)
    if (fetchesCds(unused.target) && key !== tripwireKey && !used.has(unused)) {
      actual.tables.delete(key);
      retire(actual, unused.hwpt);
    }
}

/** Takes down what serves no device any more, from the leaves inwards. */
function dismantle(actual: Actual): void {
  for (const [key, { hwpt }] of actual.tables) {
    actual.tables.delete(key);
    retire(actual, hwpt);
  }
  freeFaultQueues(actual);
  const { viommu, parent } = actual;
  if (actual.retired.length === 0 && viommu !== undefined)
    if (attempt(actual, 'teardown', () => destroy(viommu))) actual.viommu = undefined;
  if (actual.viommu === undefined && parent !== undefined)
    if (attempt(actual, 'teardown', () => destroy(parent))) actual.parent = undefined;
  if (actual.bare) actual.space.close(actual);
  else if (actual.space.isLastUser(actual)) {
    // What could not be destroyed one by one goes with the descriptor that it lives in.
    actual.space.close(actual);
    actual.forget();
  }
}

/** Destroys an object that nothing uses, or remembers to. */
function retire(actual: Actual, object: { destroy(): void }): void {
  if (!attempt(actual, 'teardown', () => destroy(object))) actual.retired.push(object);
}

/** Tries again to destroy what is retired. */
function bury(actual: Actual): void {
  for (const object of actual.retired.splice(0)) retire(actual, object);
}

/** An object that is gone already is what was wanted. */
function destroy(object: { destroy(): void }): void {
  try {
    object.destroy();
  } catch (error) {
    if (!(error instanceof HostError) || error.code !== 'ENOENT') throw error;
  }
}

function openQueue(actual: Actual, wanted: DesiredQueue): void {
  attempt(actual, 'veventq', () => {
    const veventq = Veventq.alloc(actual.space.iommufd, actual.viommu!.id, wanted.depth);
    actual.queue = { veventq, wanted };
    actual.reader.open(veventq);
  });
}

function closeQueue(actual: Actual): void {
  const { veventq } = actual.queue!;
  actual.queue = undefined;
  actual.reader.close();
  retire(actual, veventq);
}

/** Closes what is not wanted, or is for another queue of the guest. It still exists while page tables use it. */
function closeFaultQueues(actual: Actual, { faultQueues }: Desired): void {
  for (const [kind, { queue, wanted }] of actual.faultQueues) {
    if (faultQueues.get(kind) === wanted) continue;
    actual.faultQueues.delete(kind);
    actual.faultReaders.get(kind)?.close();
    queue.close();
    actual.leavingFaultQueues.push(queue);
  }
}

/** Without one the streams translate all the same, and the host ends what would wait. */
function openFaultQueues(actual: Actual, { faultQueues }: Desired): void {
  for (const [kind, wanted] of faultQueues) {
    if (actual.faultQueues.has(kind)) continue;
    attempt(actual, 'faults', () => {
      const queue = FaultQueue.alloc(actual.space.iommufd);
      actual.faultQueues.set(kind, { queue, wanted });
      actual.faultReaders.get(kind)?.open(queue);
    });
  }
}

/** Destroys what was closed, now that no page table uses it. */
function freeFaultQueues(actual: Actual): void {
  for (const queue of actual.leavingFaultQueues.splice(0)) retire(actual, queue);
}

function sameQueue(a: DesiredQueue, b: DesiredQueue | undefined): boolean {
  return b !== undefined && a.log2Size === b.log2Size && a.baseHi === b.baseHi && a.baseLo === b.baseLo;
}
