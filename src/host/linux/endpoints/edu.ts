/**
 * QEMU's edu: moves bytes between memory and a buffer of its own, which can only be filled and emptied by DMA, and does
 * not say how a transfer ended. So each is surrounded by others, from and to memory that it is known to reach.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { HostError } from '../../../iommufd/errors.ts';
import type { VfioDevice } from '../../../iommufd/vfio-device.ts';
import { type Endpoint, Registers, type Transfer } from './endpoint.ts';

/** docs/specs/edu.rst of QEMU. The last four are of 64 bits. */
const REGISTER = { Source: 0x80, Destination: 0x88, Count: 0x90, Command: 0x98 } as const;
const RUN = 1n;
const TO_MEMORY = 2n;
/** Where its buffer is, in its own addresses. */
const BUFFER = 0x4_0000n;

/** A transfer takes 100 ms of the machine's time. */
const POLL_MS = 10;

/** Never in memory by itself, and told apart by a byte of it. */
const LOADED = 0xa5;
const CLEARED = 0x5a;

export class Edu implements Endpoint {
  readonly kind = 'edu';
  readonly #device: VfioDevice;
  readonly #limitMs: number;

  /** @param limitMs how long one transfer may take. */
  constructor(device: VfioDevice, limitMs = 10_000) {
    this.#device = device;
    this.#limitMs = limitMs;
  }

  transfer(transfer: Transfer): Promise<boolean> {
    const mover = new Mover(new Registers(this.#device), this.#limitMs);
    return transfer.write ? write(mover, transfer) : read(mover, transfer);
  }
}

/** Loads the buffer, reads over it, and looks what it holds then. */
async function read(mover: Mover, { iova, bytes, workspace }: Transfer): Promise<boolean> {
  const { iova: here, bytes: memory } = workspace();
  const window = memory.subarray(0, bytes.length);
  window.fill(LOADED);
  await mover.move(here, BUFFER, bytes.length);
  await mover.move(iova, BUFFER, bytes.length);
  window.fill(CLEARED);
  await mover.move(BUFFER, here, bytes.length, TO_MEMORY);
  bytes.set(window);
  // A device that cannot reach the workspace either is cut off. A failed read leaves the buffer alone or clears it.
  return ![LOADED, CLEARED, 0].some((value) => bytes.every((byte) => byte === value));
}

/** Loads the buffer with the bytes, writes them, and looks for them in memory: they could not go anywhere else. */
async function write(mover: Mover, { iova, bytes, workspace, ram }: Transfer): Promise<boolean> {
  const { iova: here, bytes: memory } = workspace();
  const window = memory.subarray(0, bytes.length);
  window.set(bytes);
  await mover.move(here, BUFFER, bytes.length);
  window.fill(0);
  const before = countOf(ram, bytes);
  await mover.move(BUFFER, iova, bytes.length, TO_MEMORY);
  return countOf(ram, bytes) > before;
}

class Mover {
  readonly #registers: Registers;
  readonly #limitMs: number;

  constructor(registers: Registers, limitMs: number) {
    this.#registers = registers;
    this.#limitMs = limitMs;
  }

  async move(source: bigint, destination: bigint, count: number, direction = 0n): Promise<void> {
    const registers = this.#registers;
    registers.write64(REGISTER.Source, source);
    registers.write64(REGISTER.Destination, destination);
    registers.write64(REGISTER.Count, BigInt(count));
    registers.write64(REGISTER.Command, RUN | direction);
    const deadline = performance.now() + this.#limitMs;
    while ((registers.read32(REGISTER.Command) & Number(RUN)) !== 0) {
      if (performance.now() > deadline) throw new HostError('ETIMEDOUT', 'a DMA of edu');
      await sleep(POLL_MS);
    }
  }
}

/** How often four aligned bytes occur. */
function countOf(ram: Uint8Array, bytes: Uint8Array): number {
  const words = new Uint32Array(ram.buffer, ram.byteOffset, ram.length >>> 2);
  const word = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  let count = 0;
  for (let at = words.indexOf(word); at >= 0; at = words.indexOf(word, at + 1)) count++;
  return count;
}
