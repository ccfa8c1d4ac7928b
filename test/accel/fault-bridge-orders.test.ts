/**
 * Stalls under a guest that does anything at any time, from inside interrupts too, between a kernel that counts as
 * Linux does and an event queue that is small and sometimes aborts. No answer reaches another fault than its own, and
 * what waits is known to the guest.
 */

import { expect, it } from 'vitest';
import { FaultBridge, type StallSink } from '../../src/accel/fault-bridge.ts';
import { iommu_hwpt_page_response, iommu_hwpt_pgfault } from '../../src/iommufd/uapi/page-fault.ts';
import { EVENT, type EventStatus } from '../../src/smmu/ports.ts';
import { FaultKernel, fault, joined } from '../support/fault-kernel.ts';
import { Random } from '../support/random.ts';

interface Fault {
  readonly page: number;
  readonly device: number;
}

/** Gives out the lowest cookie that is free, and knows none that was answered. */
class Host extends FaultKernel {
  readonly unread: Fault[] = [];
  readonly read_ = new Map<number, Fault>();
  /** What the answer that is being given has to be for, if the guest knows that it is for something. */
  due: number | undefined;

  override read(_fd: number, into: Uint8Array): number {
    const records = this.unread.splice(0, into.length / iommu_hwpt_pgfault.size).map((next) => {
      let cookie = 1;
      while (this.read_.has(cookie)) cookie++;
      this.read_.set(cookie, next);
      return fault({ dev_id: next.device, cookie, addr: BigInt(next.page) << 12n });
    });
    const bytes = joined(...records);
    into.set(bytes);
    return bytes.length;
  }

  override write(_fd: number, from: Uint8Array): number {
    const { cookie } = iommu_hwpt_page_response.decode(from);
    const answered = this.read_.get(cookie);
    expect(answered, 'an answer to what waits').toBeDefined();
    if (this.due !== undefined) expect(answered?.page).toBe(this.due);
    this.read_.delete(cookie);
    return from.length;
  }

  /** A device has another page table: the kernel ends all that it waits for. */
  end(device: number): void {
    for (const [cookie, { device: owner }] of this.read_) if (owner === device) this.read_.delete(cookie);
    const others = this.unread.filter(({ device: owner }) => owner !== device);
    this.unread.splice(0, this.unread.length, ...others);
  }
}

/** One of the devices has no StreamID. */
const DEVICES = [1, 2, 3, 4];
const STRANGER = 4;

class World implements StallSink {
  readonly host = new Host();
  readonly bridge = new FaultBridge(this);
  readonly #random: Random;
  readonly #size: number;
  readonly #queue: Uint32Array[] = [];
  /** Records that the guest has read and not answered. */
  #known: Uint32Array[] = [];
  #open = false;
  #aborted = false;
  /** Writes abort one by one, so that the second of two is taken. */
  #mayAbort = true;
  #sawNoRoom = false;
  #depth = 0;
  #pages = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    this.#size = 1 + this.#random.below(6);
    this.#toggle();
  }

  sidOf(device: number): number {
    return device === STRANGER ? -1 : 0x10 + device;
  }

  typeOf(): number {
    return this.#random.chance(0.3) ? 0 : 0x10;
  }

  eventQueueSpace(): number {
    const space = this.#open && !this.#aborted ? this.#size - this.#queue.length : 0;
    if (space === 0) this.#sawNoRoom = true;
    return space;
  }

  recordEvent(words: Uint32Array): EventStatus {
    if (!this.#open) return EVENT.Disabled;
    if (this.eventQueueSpace() === 0) return this.#aborted ? EVENT.Aborted : EVENT.Full;
    if (this.#mayAbort && this.#random.chance(0.1)) {
      this.#mayAbort = false;
      this.#aborted = true;
      this.#sawNoRoom = true;
      this.#interrupt();
      return EVENT.Aborted;
    }
    this.#mayAbort = true;
    this.#queue.push(words.slice());
    if (this.#queue.length === 1) this.#interrupt();
    return EVENT.Queued;
  }

  #interrupt(): void {
    if (this.#depth > 3) return;
    this.#depth++;
    for (let actions = this.#random.below(4); actions > 0; actions--) this.#guest();
    this.#depth--;
  }

  /** As an SMMU does after a write of CONS or GERRORN. */
  #look(): void {
    if (!this.#sawNoRoom || this.eventQueueSpace() === 0) return;
    this.#sawNoRoom = false;
    this.bridge.roomAppeared();
  }

  #consume(): void {
    const record = this.#queue.shift();
    if (record !== undefined) this.#known.push(record);
    this.#look();
  }

  #answer(): void {
    const [record] = this.#known.splice(this.#random.below(this.#known.length + 1), 1);
    if (record === undefined) return;
    this.host.due = record[4] >>> 12;
    this.bridge.resume(record[1], record[2] & 0xffff, this.#random.chance(0.5));
    this.host.due = undefined;
  }

  #end(device: number): void {
    this.host.end(device);
    this.bridge.forget(device);
  }

  /** EVENTQEN. */
  #toggle(): void {
    if (!this.#open) {
      this.#aborted = false;
      this.#open = true;
      this.bridge.open(this.host.queue());
      return;
    }
    this.bridge.close();
    this.#open = false;
    this.#queue.length = 0;
    this.#known = [];
    for (const device of DEVICES) this.#end(device);
  }

  #guest(): void {
    switch (this.#random.below(12)) {
      case 0:
        return this.#acknowledge();
      case 1:
      case 2:
        return this.#answer();
      case 3:
        return this.bridge.resume(
          0x10 + this.#random.below(4),
          this.#random.below(30),
          this.#random.chance(0.5),
        );
      case 4:
        return this.bridge.terminateStalls(0x10 + this.#random.below(4));
      case 5:
        return this.bridge.invalidated();
      case 6:
        // CR0.PRIQEN, which says nothing of room.
        return this.bridge.roomAppeared();
      case 7:
        return this.#random.chance(0.3) ? this.#toggle() : undefined;
      case 8:
        return this.#random.chance(0.4) ? this.#end(1 + this.#random.below(3)) : undefined;
      case 9:
        return this.#random.chance(0.1) ? this.bridge.releaseAll() : undefined;
      default:
        return this.#consume();
    }
  }

  #acknowledge(): void {
    this.#aborted = false;
    this.#look();
  }

  step(): void {
    if (this.#open)
      for (let faults = this.#random.below(4); faults > 0; faults--)
        this.host.unread.push({
          page: ++this.#pages,
          device: this.#random.chance(0.05) ? STRANGER : 1 + this.#random.below(3),
        });
    if (this.#random.chance(0.6)) this.#turn();
    else this.#guest();
  }

  #turn(): void {
    if (this.host.unread.length > 0) this.host.callback?.();
  }

  /** The guest reads all that comes; then it has to know of everything that waits. */
  settle(): void {
    this.#depth = Infinity;
    if (!this.#open) this.#toggle();
    for (let turn = 0; turn < 300; turn++) {
      this.#acknowledge();
      this.#consume();
      this.#turn();
    }
    expect(this.host.unread).toEqual([]);
    const known = new Set(this.#known.map((record) => record[4] >>> 12));
    expect([...this.host.read_.values()].filter(({ page }) => !known.has(page))).toEqual([]);
    expect(this.bridge.outstanding).toBe(this.host.read_.size);
    const { read, retried, aborted, released, ended, forgotten, refused } = this.bridge.counters;
    expect(retried + aborted + released + ended + forgotten + this.bridge.outstanding).toBe(read);
    expect(refused).toBe(0);
  }
}

it.each(Array.from({ length: 10 }, (_, i) => i))('whatever a guest does, in 200 worlds: part %i', (first) => {
  for (let i = 0; i < 200; i++) {
    const seed = first * 200 + i;
    const world = new World(seed);
    try {
      for (let step = 0; step < 60; step++) world.step();
      world.settle();
    } catch (error) {
      throw new Error(`in the world of seed ${seed}`, { cause: error });
    }
  }
});
