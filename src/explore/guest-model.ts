/**
 * What the guest has said, and what the architecture lets a device do then. It is kept from the steps alone, by rules of
 * its own: nothing of the SMMU or the accelerator is asked.
 *
 * A structure may be cached from when it was written until the invalidation of its old value is complete. So for each
 * there is a set of values that may be in force; a step that writes adds to it, and an invalidation takes it down to
 * what has been there since.
 */

import { BARE_SPACES, IDENTITY_FRAME, type SteChoice } from '../guest/bare-guest.ts';
import { Versions } from './versions.ts';

/** Where a read of the page goes: a frame, or nowhere. */
export type Reach = number | 'abort';

/** A Stream Table Entry, as far as the model tells them apart: `translate` with the number of the address space. */
export type SteValue = Exclude<SteChoice, 'translate'> | number;

/** A device in the model. */
export class ModelDevice {
  sid: number;
  plugged = false;
  /** The host wants it back, and the machine has not heard of that yet. */
  leaving = false;
  /** When it came to its StreamID; the least comes first. */
  since = 0;

  constructor(sid: number) {
    this.sid = sid;
  }
}

export class GuestModel {
  /** CMDQEN: the queues and tables are where the guest wants them. */
  isSetUp = false;
  smmuEnabled = false;
  eventqEnabled = false;
  gbpaAbort = false;
  eventqLog2 = 0;
  eventqPlace = 0;
  streamTable = 0;
  readonly devices: readonly ModelDevice[];
  /** By stream table and StreamID. */
  readonly #stes = new Map<string, Versions<SteValue>>();
  /** The root that each CD names; cached by StreamID and space. */
  readonly #cds = new Map<string, Versions<number>>();
  readonly #roots: number[] = [];
  /** The frame that each root maps the page to. */
  readonly #pages: (number | undefined)[] = [];
  /** What a walk for each ASID may have found. */
  readonly #walks: { live: Set<Reach>; since: Set<Reach> | undefined }[] = [];
  /** Commands since the last CMD_SYNC, each once: what they are about may be equal, and how they are carried out not. */
  readonly #window = new Set<string>();
  #arrivals = 0;

  /** @param sids StreamIDs of the devices. */
  constructor(sids: readonly number[]) {
    this.devices = sids.map((sid) => new ModelDevice(sid));
    for (let space = 0; space < BARE_SPACES; space++) {
      this.#roots.push(space);
      this.#pages.push(space);
      this.#walks.push({ live: new Set<Reach>([space]), since: undefined });
    }
  }

  #ste(sid: number, table = this.streamTable): Versions<SteValue> {
    const key = `${table}:${sid}`;
    let ste = this.#stes.get(key);
    if (ste === undefined) this.#stes.set(key, (ste = new Versions<SteValue>('abort')));
    return ste;
  }

  #cd(sid: number, space: number): Versions<number> {
    const key = `${sid}:${space}`;
    let cd = this.#cds.get(key);
    if (cd === undefined) this.#cds.set(key, (cd = new Versions(this.#roots[space])));
    return cd;
  }

  /** The page tables that a CD names now. */
  rootOf(space: number): number {
    return this.#roots[space];
  }

  /** The root of this number maps the page. */
  isMapped(root: number): boolean {
    return this.#pages[root] !== undefined;
  }

  storeSte(sid: number, value: SteValue): void {
    this.#ste(sid).store(value);
  }

  storeCd(space: number, root: number): void {
    // Only a device whose STE may lead there can have it cached.
    for (const device of this.devices) if (this.stesOf(device).has(space)) this.#cd(device.sid, space);
    this.#roots[space] = root;
    for (const [key, cd] of this.#cds) if (key.endsWith(`:${space}`)) cd.store(root);
    this.#changed();
  }

  storePage(root: number, frame: number | undefined): void {
    this.#pages[root] = frame;
    this.#changed();
  }

  /** A walk may now find something else. */
  #changed(): void {
    for (let space = 0; space < BARE_SPACES; space++) {
      const walk = this.#walks[space];
      for (const reach of this.#findable(space)) {
        walk.live.add(reach);
        walk.since?.add(reach);
      }
    }
  }

  /** What a walk for an address space can find now, by any CD that may be in force. */
  #findable(space: number): Set<Reach> {
    const roots = new Set([this.#roots[space]]);
    for (const [key, cd] of this.#cds)
      if (key.endsWith(`:${space}`)) for (const root of cd.live) roots.add(root);
    const found = new Set<Reach>();
    for (const root of roots) found.add(this.#pages[root] ?? 'abort');
    return found;
  }

  /** The SMMU carries out a CFGI_STE: its port promises the new STE at once, the CDs are gone at the CMD_SYNC. */
  invalidateSte(sid: number | undefined, log2 = 0): void {
    for (const device of this.devices)
      // 4.3.2: a range is of 2^log2 StreamIDs, and begins at a multiple of that.
      if (sid === undefined || device.sid >>> log2 === sid >>> log2) {
        this.#ste(device.sid).collapse();
        for (let space = 0; space < BARE_SPACES; space++) this.#cd(device.sid, space).invalidate();
      }
  }

  /** A command was issued that the next CMD_SYNC completes. */
  issued(command: string): void {
    this.#window.add(command);
  }

  invalidateCd(sid: number): void {
    for (let space = 0; space < BARE_SPACES; space++) this.#cd(sid, space).invalidate();
  }

  /** @param space all if undefined. */
  invalidateTlb(space: number | undefined): void {
    for (let i = 0; i < BARE_SPACES; i++)
      if (space === undefined || space === i) this.#walks[i].since = this.#findable(i);
  }

  sync(): void {
    this.#window.clear();
    for (const cd of this.#cds.values()) cd.complete();
    for (const walk of this.#walks) {
      if (walk.since === undefined) continue;
      walk.live = walk.since;
      walk.since = undefined;
    }
  }

  /** SMMUEN changed, or the stream table moved: every STE is read anew. */
  refreshAll(): void {
    for (const { sid } of this.devices) this.#ste(sid).collapse();
  }

  /** A device comes, or gets another StreamID. Its STE is read then, unless another device has that StreamID already. */
  arrives(device: ModelDevice): void {
    device.since = ++this.#arrivals;
    if (!this.isShadowed(device)) this.#ste(device.sid).collapse();
  }

  /** A device is about to go, away or to another StreamID: who is second there will be first, and its STE is read. */
  leaves(device: ModelDevice): void {
    if (!this.isShadowed(device)) this.#ste(device.sid).collapse();
  }

  /** Another device came to this StreamID before: a StreamID has one device, and this one has none. */
  isShadowed({ plugged, sid, since }: ModelDevice): boolean {
    return plugged && this.devices.some((one) => one.plugged && one.sid === sid && one.since < since);
  }

  /** System reset: registers are cold, and nothing is cached. Memory stays. */
  reset(): void {
    this.isSetUp = false;
    this.smmuEnabled = false;
    this.eventqEnabled = false;
    this.gbpaAbort = false;
    this.#window.clear();
    for (const ste of this.#stes.values()) ste.collapse();
    for (const cd of this.#cds.values()) cd.collapse();
    for (const [space, walk] of this.#walks.entries()) {
      walk.since = undefined;
      walk.live = this.#findable(space);
    }
  }

  /** The STEs that may be in force for a device, now that SMMUEN=1. */
  stesOf(device: ModelDevice): ReadonlySet<SteValue> {
    return this.isShadowed(device) ? NO_STE : this.#ste(device.sid).live;
  }

  /** What a device may be attached to. */
  attachments(device: ModelDevice): Set<string> {
    if (!this.smmuEnabled) return new Set([this.gbpaAbort ? 'abort' : 'bypass']);
    const kinds = new Set<string>();
    for (const ste of this.stesOf(device)) kinds.add(kindOf(ste));
    return kinds;
  }

  /** Where a read of the page by a plugged device may go. */
  reaches(device: ModelDevice): Set<Reach> {
    const all = new Set<Reach>();
    if (!this.smmuEnabled) return all.add(this.gbpaAbort ? 'abort' : IDENTITY_FRAME);
    for (const ste of this.stesOf(device)) this.reachesOf(ste, all);
    return all;
  }

  /** Adds where a read goes under one STE. */
  reachesOf(ste: SteValue, into: Set<Reach>): void {
    if (typeof ste === 'number') {
      for (const reach of this.#walks[ste].live) if (reach !== 'abort') into.add(reach);
      // What is not mapped is not cached: only a walk of now ends so.
      if (this.#findable(ste).has('abort')) into.add('abort');
    } else into.add(ste === 'bypass' ? IDENTITY_FRAME : 'abort');
  }

  /** The one STE that is in force beyond doubt, if there is one. */
  certainSte(device: ModelDevice): SteValue | undefined {
    const [first, ...others] = this.stesOf(device);
    return others.length === 0 ? first : undefined;
  }

  /** Everything that the future depends on. */
  get text(): string {
    const parts: string[] = [
      `${Number(this.isSetUp)}${Number(this.smmuEnabled)}${Number(this.eventqEnabled)}${Number(this.gbpaAbort)}`,
      `${this.eventqLog2}.${this.eventqPlace}.${this.streamTable}`,
    ];
    for (const device of this.devices)
      parts.push(
        `${device.sid}${device.plugged ? '+' : '-'}${device.leaving ? '!' : ''}${this.isShadowed(device) ? '2' : ''}`,
      );
    const structures: string[] = [];
    for (const [key, ste] of this.#stes) structures.push(`s${key}=${ste.text}`);
    for (const [key, cd] of this.#cds) structures.push(`c${key}=${cd.text}`);
    parts.push(...structures.sort());
    parts.push(this.#roots.join('.'), this.#pages.join('.'));
    for (const { live, since } of this.#walks)
      parts.push(`${listOf(live)}/${since === undefined ? '' : listOf(since)}`);
    parts.push([...this.#window].sort().join(' '));
    return parts.join('|');
  }
}

/** What a device without a StreamID of its own can do. */
const NO_STE: ReadonlySet<SteValue> = new Set<SteValue>(['abort']);

const listOf = (set: ReadonlySet<Reach>): string => [...set].map(String).sort().join('.');

export const kindOf = (ste: SteValue): string =>
  typeof ste === 'number' ? 'translate' : ste === 'bypass' ? 'bypass' : 'abort';
