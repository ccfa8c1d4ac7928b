/**
 * What should exist on the host, as a pure function of what the guest can see. Nothing here knows what does exist:
 * that is {@link import('./reconcile.ts')}'s business, and the reason why no order of events matters.
 */

import { STE, STE_CONFIG, STE_EATS, STE_WORDS } from '../spec/ste.ts';
import { EVENT_TYPE } from '../spec/events.ts';
import type { FaultKind } from '../iommufd/host-info.ts';
import { VEVENTQ_MAX_DEPTH } from '../iommufd/uapi/iommufd.ts';

/** What the guest's registers say. */
export interface GuestState {
  /** CR0.SMMUEN */
  readonly smmuEnabled: boolean;
  /** GBPA.ABORT */
  readonly gbpaAbort: boolean;
  /** CR0.EVENTQEN */
  readonly eventqEnabled: boolean;
  /** Effective log2 of the entries of the event queue, 0..19. */
  readonly eventqLog2Size: number;
  /** CR2.RECINVSID: C_BAD_STREAMID is recorded. */
  readonly recordsBadStreamId: boolean;
  /** Halves of EVENTQ_BASE.ADDR. */
  readonly eventqBaseHi: number;
  readonly eventqBaseLo: number;
  /** CR0.PRIQEN and SMMUEN. */
  readonly priqEnabled: boolean;
  /** PRIQ_BASE. */
  readonly priqBaseHi: number;
  readonly priqBaseLo: number;
}

/** A plugged device, as the guest's SMMU sees it. */
export interface PluggedStream {
  readonly name: string;
  /** The guest's StreamID; undefined while the guest has given the device no place on a bus. */
  readonly sid: number | undefined;
  /** Which of its faults the host hands over; none if absent. */
  readonly faults?: FaultKind | undefined;
}

/**
 * Reads the STE of a StreamID.
 * @param into receives the 16 words; after F_STE_FETCH the first two are the address that could not be read.
 * @returns 0 if the STE is valid, else the EventType that using it would raise.
 */
export type SteLookup = (sid: number, into: Uint32Array) => number;

/** What host and guest have in common, as far as an STE can ask for it, and what the host can do besides. */
export interface SteLimits {
  /** The guest's IDR0.ATS. */
  readonly ats: boolean;
  /** The guest's IDR1.SSIDSIZE. */
  readonly ssidSize: number;
  /** What S1STALLD must be for streams whose stalls nobody would answer: 1 where the hardware stalls by default. */
  readonly stallDisable: 0 | 1;
  /** What the guest was told of. */
  readonly offered: ReadonlySet<FaultKind>;
  /** What reports DMA that has to abort with an event; undefined if there can be none. */
  readonly tripwire: Target | undefined;
}

/** What a stream is attached to. Two equal targets have equal keys. */
export interface Target {
  /** A tripwire aborts too, but with an event: {@link import('./tripwire.ts')}. */
  readonly kind: 'abort' | 'bypass' | 'translate' | 'tripwire';
  /** Words 0 and 1 of the STE for the host as four 32-bit words, masked to what the kernel accepts. */
  readonly ste: readonly [number, number, number, number];
  readonly key: string;
  /** Of a translating stream: which faults go to the guest and wait for its answer. */
  readonly faults?: FaultKind | undefined;
}

export const ABORT: Target = { kind: 'abort', ste: [STE.V.put(1), 0, 0, 0], key: 'abort' };
export const BYPASS: Target = {
  kind: 'bypass',
  ste: [STE.V.put(1) | STE.Config.put(STE_CONFIG.Bypass), 0, 0, 0],
  key: 'bypass',
};

export interface DesiredStream {
  readonly name: string;
  /** StreamID of its vDEVICE; undefined if it cannot have one now. */
  readonly vsid: number | undefined;
  readonly target: Target;
  /** EventType that is due if the device uses this stream; 0 if none is, or if the hardware itself knows. */
  readonly event: number;
  /** With F_STE_FETCH: what could not be read. */
  readonly fetchHi: number;
  readonly fetchLo: number;
  /** Why this target, in the architecture's names. */
  readonly why: string;
}

/** A vEVENTQ stands for one guest queue: another base or size makes another vEVENTQ. */
export interface DesiredQueue {
  /** Records, 1..VEVENTQ_MAX_DEPTH. */
  readonly depth: number;
  readonly log2Size: number;
  readonly baseHi: number;
  readonly baseLo: number;
}

export interface Desired {
  /** A vIOMMU, the stage 2 below it and its abort table. */
  readonly viommu: boolean;
  readonly veventq: DesiredQueue | undefined;
  /** A FAULT_QUEUE for each kind; the text names the guest's queue that it is for. */
  readonly faultQueues: ReadonlyMap<FaultKind, string>;
  readonly streams: readonly DesiredStream[];
}

/** @returns what should exist. The same arguments give an equal value. */
export function desired(
  guest: GuestState,
  plugged: readonly PluggedStream[],
  lookup: SteLookup,
  limits: SteLimits,
): Desired {
  const viommu = plugged.length > 0;
  const taken = new Set<number>();
  const streams: DesiredStream[] = [];
  const faultQueues = viommu ? desiredFaultQueues(guest, limits) : NONE;
  const ste = new Uint32Array(STE_WORDS);
  for (const { name, sid, faults } of plugged) {
    const unique = sid !== undefined && !taken.has(sid);
    if (unique) taken.add(sid);
    const vsid = unique ? sid : undefined;
    ste.fill(0);
    const found = streamTarget(guest, vsid, lookup, ste, limits, { kind: faults, heard: faultQueues });
    const fetched = found.event === EVENT_TYPE.F_STE_FETCH;
    streams.push({ name, vsid, ...found, fetchHi: fetched ? ste[1] : 0, fetchLo: fetched ? ste[0] : 0 });
  }
  const veventq = viommu && guest.eventqEnabled ? desiredQueue(guest) : undefined;
  return { viommu, veventq, faultQueues, streams };
}

const NONE: ReadonlyMap<FaultKind, string> = new Map();

/** Stalls are events, which need EVENTQEN; page requests have a queue of their own. Nobody would answer otherwise. */
function desiredFaultQueues(guest: GuestState, { offered }: SteLimits): ReadonlyMap<FaultKind, string> {
  if (offered.size === 0) return NONE;
  const queues = new Map<FaultKind, string>();
  if (offered.has('stall') && guest.eventqEnabled)
    queues.set('stall', `${guest.eventqBaseHi}:${guest.eventqBaseLo}:${guest.eventqLog2Size}`);
  if (offered.has('page-request') && guest.priqEnabled)
    queues.set('page-request', `${guest.priqBaseHi}:${guest.priqBaseLo}`);
  return queues;
}

/** What a stream's faults can be, and which kinds find a queue now. */
interface Faults {
  readonly kind: FaultKind | undefined;
  readonly heard: ReadonlyMap<FaultKind, string>;
}

function desiredQueue(guest: GuestState): DesiredQueue {
  const log2Size = guest.eventqLog2Size;
  return {
    depth: Math.min(Math.max(2 ** log2Size, 1), VEVENTQ_MAX_DEPTH),
    log2Size,
    baseHi: guest.eventqBaseHi,
    baseLo: guest.eventqBaseLo,
  };
}

function streamTarget(
  guest: GuestState,
  sid: number | undefined,
  lookup: SteLookup,
  ste: Uint32Array,
  limits: SteLimits,
  faults: Faults,
): { target: Target; event: number; why: string } {
  // 6.3.9.6, 6.3.15: without SMMUEN no structure is read and GBPA alone decides.
  if (!guest.smmuEnabled)
    return guest.gbpaAbort
      ? { target: ABORT, event: 0, why: 'SMMUEN=0, GBPA.ABORT=1' }
      : { target: BYPASS, event: 0, why: 'SMMUEN=0, GBPA.ABORT=0' };
  if (sid === undefined) return { target: ABORT, event: 0, why: 'no StreamID of its own' };
  const event = lookup(sid, ste);
  if (event !== 0) return { target: noEntry(guest, event, limits), event, why: 'no valid STE' };
  const config = STE.Config.get(ste);
  // 5.2: Config[2]=0 aborts every transaction and records nothing.
  if ((config & 0b100) === 0) return { target: ABORT, event: 0, why: 'STE.Config=abort' };
  if (config === STE_CONFIG.Bypass) return { target: BYPASS, event: 0, why: 'STE.Config=bypass' };
  // The guest has no stage 2 (IDR0.S2P=0), so a lookup that lets one pass is to be mistrusted.
  if (config !== STE_CONFIG.S1)
    return {
      target: noEntry(guest, EVENT_TYPE.C_BAD_STE, limits),
      event: EVENT_TYPE.C_BAD_STE,
      why: 'STE.Config is ILLEGAL',
    };
  return { target: translateTarget(ste, limits, faults), event: 0, why: 'STE.Config=S1' };
}

/** Aborts, and reports it if anyone hears. */
function noEntry(guest: GuestState, event: number, limits: SteLimits): Target {
  // 6.3.12: unknown StreamIDs are reported only if software wants to hear of them. With no vEVENTQ the host would print
  // the events into its own log.
  const heard = guest.eventqEnabled && (event !== EVENT_TYPE.C_BAD_STREAMID || guest.recordsBadStreamId);
  return heard && limits.tripwire !== undefined ? limits.tripwire : ABORT;
}

/** What Linux 7.3 takes of words 0 and 1 of an STE; any other bit is EIO. */
export const STE_KERNEL_MASK = [0xffff_ffff, 0xf80f_ffff, 0x3800_00ff, 0] as const;

/** The target for an STE whose Config is S1: same meaning, no bit that the kernel refuses. */
function translateTarget(guestSte: Uint32Array, limits: SteLimits, { kind, heard }: Faults): Target {
  const ste = Uint32Array.from(STE_KERNEL_MASK, (mask, i) => guestSte[i] & mask);
  // 5.2: without substreams S1CDMax is IGNORED, and with it S1Fmt and S1DSS.
  if (limits.ssidSize === 0) STE.S1CDMax.set(ste, 0);
  const ats = limits.ats && STE.EATS.get(ste) === STE_EATS.Full;
  STE.EATS.set(ste, ats ? STE_EATS.Full : STE_EATS.Disabled);
  // 5.2: with S1STALLD=1 a CD.S=1 is ILLEGAL, so that the guest hears of it; a stall that nobody answers is for ever.
  const mayStall = kind === 'stall' && limits.offered.has('stall');
  STE.S1STALLD.set(ste, mayStall ? STE.S1STALLD.get(guestSte) : limits.stallDisable);
  const words = [ste[0], ste[1], ste[2], ste[3]] as const;
  const faults = kind !== undefined && heard.has(kind) ? kind : undefined;
  const key = words.map((word) => word.toString(16)).join(':') + (faults === undefined ? '' : ` ${faults}`);
  return { kind: 'translate', ste: words, key, faults };
}
