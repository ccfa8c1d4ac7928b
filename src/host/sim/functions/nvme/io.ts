/** The NVM command set (NVMe 1.4, chapter 6). */

import { IO, STATUS, WORD } from './command.ts';
import type { Namespace } from './namespace.ts';
import type { Transfer } from './transfer.ts';

const ALL_NAMESPACES = 0xffff_ffff;
const DATASET_RANGE_WORDS = 4;

export class IoCommands {
  readonly #namespace: Namespace;
  readonly #transfer: Transfer;
  /** 256 ranges of 16 bytes. */
  readonly #ranges = new Uint32Array(256 * DATASET_RANGE_WORDS);
  readonly #rangeBytes = new Uint8Array(this.#ranges.buffer);
  /** Bytes of storage that the last command touched: what it cost. */
  touched = 0;

  constructor(namespace: Namespace, transfer: Transfer) {
    this.#namespace = namespace;
    this.#transfer = transfer;
  }

  /** Carries out a command. @returns a status */
  execute(sqe: Uint32Array): number {
    this.touched = 0;
    const nsid = sqe[WORD.NSID];
    switch (sqe[0] & 0xff) {
      case IO.Read:
        return nsid === 1 ? this.#read(sqe) : STATUS.InvalidNamespace;
      case IO.Write:
        return nsid === 1 ? this.#write(sqe) : STATUS.InvalidNamespace;
      case IO.Flush:
        // Storage is memory: a completed write has reached it.
        return nsid === 1 || nsid === ALL_NAMESPACES ? STATUS.Success : STATUS.InvalidNamespace;
      case IO.WriteZeroes:
        return nsid === 1 ? this.#writeZeroes(sqe) : STATUS.InvalidNamespace;
      case IO.DatasetManagement:
        return nsid === 1 ? this.#datasetManagement(sqe) : STATUS.InvalidNamespace;
      default:
        return STATUS.InvalidOpcode;
    }
  }

  /** Checks the range of a Read or Write and finds its memory; `touched` becomes its length. */
  #begin(sqe: Uint32Array): number {
    const namespace = this.#namespace;
    const count = (sqe[WORD.CDW12] & 0xffff) + 1;
    const length = count * 2 ** namespace.blockShift;
    if (length > this.#transfer.maxBytes) return STATUS.InvalidField;
    if (!namespace.holds(sqe[WORD.CDW11], sqe[WORD.CDW10], count)) return STATUS.LbaOutOfRange;
    this.touched = length;
    return this.#transfer.gather(sqe, length);
  }

  #read(sqe: Uint32Array): number {
    const namespace = this.#namespace;
    const status = this.#begin(sqe);
    if (status !== STATUS.Success) return status;
    namespace.usage.reads += 1;
    namespace.usage.bytesRead += this.touched;
    return this.#transfer.toHost(namespace.bytes, sqe[WORD.CDW10] * 2 ** namespace.blockShift);
  }

  #write(sqe: Uint32Array): number {
    const namespace = this.#namespace;
    const status = this.#begin(sqe);
    if (status !== STATUS.Success) return status;
    namespace.usage.writes += 1;
    namespace.usage.bytesWritten += this.touched;
    return this.#transfer.fromHost(namespace.bytes, sqe[WORD.CDW10] * 2 ** namespace.blockShift);
  }

  #writeZeroes(sqe: Uint32Array): number {
    const namespace = this.#namespace;
    const count = (sqe[WORD.CDW12] & 0xffff) + 1;
    if (!namespace.holds(sqe[WORD.CDW11], sqe[WORD.CDW10], count)) return STATUS.LbaOutOfRange;
    namespace.zero(sqe[WORD.CDW10], count);
    this.touched = count * 2 ** namespace.blockShift;
    return STATUS.Success;
  }

  /** 6.7: only deallocation does anything; it is advice, so one command clears each block at most once. */
  #datasetManagement(sqe: Uint32Array): number {
    const namespace = this.#namespace;
    const n = (sqe[WORD.CDW10] & 0xff) + 1;
    const status = this.#transfer.gather(sqe, n * DATASET_RANGE_WORDS * 4);
    if (status !== STATUS.Success) return status;
    const moved = this.#transfer.fromHost(this.#rangeBytes, 0);
    if (moved !== STATUS.Success) return moved;
    const ranges = this.#ranges;
    for (let i = 0; i < n * DATASET_RANGE_WORDS; i += DATASET_RANGE_WORDS)
      if (!namespace.holds(ranges[i + 3], ranges[i + 2], ranges[i + 1])) return STATUS.LbaOutOfRange;
    if ((sqe[WORD.CDW11] & (1 << 2)) === 0) return STATUS.Success;
    for (let i = 0; i < n * DATASET_RANGE_WORDS; i += DATASET_RANGE_WORDS) {
      const bytes = ranges[i + 1] * 2 ** namespace.blockShift;
      if (this.touched + bytes > namespace.bytes.length) break;
      namespace.zero(ranges[i + 2], ranges[i + 1]);
      this.touched += bytes;
    }
    return STATUS.Success;
  }
}
