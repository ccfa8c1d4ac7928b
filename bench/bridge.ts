/** The event bridge between a host that has 64 records for every read and a guest's queue of 2048. */

import { EventBridge } from '../src/accel/event-bridge.ts';
import { READ_RECORDS } from '../src/accel/vevent-reader.ts';
import { VEVENT_ARM_SMMUV3_SIZE } from '../src/iommufd/uapi/vevent.ts';
import { OFFSET } from '../src/spec/registers.ts';
import { event, VeventqKernel } from '../test/support/veventq-kernel.ts';
import { BenchMachine } from './machine.ts';

const RECORD_WORDS = VEVENT_ARM_SMMUV3_SIZE / 4;
const WRAP = 0xfff;

/** Its reads cost next to nothing: the same records, with new numbers. */
class EndlessKernel extends VeventqKernel {
  readonly #records: Uint32Array;
  readonly #bytes: Uint8Array;
  #sequence = 0;

  /** @param sids StreamIDs of the records of a read, again and again. */
  constructor(sids: readonly number[]) {
    super();
    const records = Array.from({ length: READ_RECORDS }, (_, i) => event(0, sids[i % sids.length]));
    this.#records = Uint32Array.from(records.flat());
    this.#bytes = new Uint8Array(this.#records.buffer);
  }

  override read(_fd: number, into: Uint8Array): number {
    const count = Math.floor(into.length / VEVENT_ARM_SMMUV3_SIZE);
    for (let i = 0; i < count; i++)
      this.#records[i * RECORD_WORDS + 1] = this.#sequence = (this.#sequence + 1) & 0x7fff_ffff;
    const bytes = count * VEVENT_ARM_SMMUV3_SIZE;
    if (count === READ_RECORDS) into.set(this.#bytes);
    else into.set(this.#bytes.subarray(0, bytes));
    return bytes;
  }
}

export class BridgeMachine {
  readonly bridge: EventBridge;
  readonly machine = new BenchMachine(16);
  readonly #kernel: EndlessKernel;

  /** @param sids of the records of a read, again and again; how many devices share the queue. */
  constructor(sids: readonly number[], devices: number) {
    this.#kernel = new EndlessKernel(sids);
    this.bridge = new EventBridge(this.machine.smmu);
    this.bridge.share(devices);
    this.bridge.open(this.#kernel.veventq(2048));
  }

  /** One turn of the event loop, if the bridge waits for one. */
  turn(): void {
    this.#kernel.callback?.();
  }

  /** The guest takes so many of its records. */
  take(count: number): void {
    const { smmu } = this.machine;
    const cons = smmu.read(OFFSET.EVENTQ_CONS, 4) & WRAP;
    smmu.write(OFFSET.EVENTQ_CONS, 4, 0, (cons + count) & WRAP);
    this.bridge.resume();
  }
}
