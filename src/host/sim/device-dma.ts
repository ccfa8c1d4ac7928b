/** DMA of a device: through its SMMU, block by block, into host-physical memory. */

import { MEM_OK } from '../../memory/memory.ts';
import { OUTCOME, type Outcome, Transaction, Translation } from '../../smmu/transaction.ts';
import type { ArmSmmu } from './arm-smmu-v3/arm-smmu.ts';

/** Nothing larger is copied after one translation. */
const MAX_LOG2_BLOCK = 30;
const BYTES_32 = 4;

export class DeviceDma {
  readonly #smmu: ArmSmmu;
  /** Reused: one transaction is under way at a time. */
  readonly #transaction = new Transaction();
  readonly #translation = new Translation();

  constructor(smmu: ArmSmmu, sid: number) {
    this.#smmu = smmu;
    this.#transaction.sid = sid;
  }

  /** Reads or writes; stops at the first block that does not translate or meets no memory. */
  transfer(iovaHi: number, iovaLo: number, bytes: Uint8Array, write: boolean): Outcome {
    const transaction = this.#transaction;
    const translation = this.#translation;
    const { memory } = this.#smmu.host;
    transaction.addrHi = iovaHi >>> 0;
    transaction.addrLo = iovaLo >>> 0;
    transaction.write = write;
    let outcome: Outcome = OUTCOME.Ok;
    for (let done = 0; done < bytes.length;) {
      outcome = this.#smmu.model.translate(transaction, translation);
      if (outcome !== OUTCOME.Ok) {
        // Reads return zero; that is what RAZ means.
        if (outcome === OUTCOME.RazWi && !write) bytes.fill(0, done);
        break;
      }
      const block = 2 ** Math.min(translation.log2Size, MAX_LOG2_BLOCK);
      const size = Math.min(bytes.length - done, block - (transaction.addrLo % block));
      const piece = bytes.subarray(done, done + size);
      const { paHi, paLo } = translation;
      let status = write ? memory.writeBytes(paHi, paLo, piece) : memory.readBytes(paHi, paLo, piece);
      if (status !== MEM_OK && write && size === BYTES_32 && paLo % BYTES_32 === 0)
        status = memory.store32(paHi, paLo, new DataView(piece.buffer, piece.byteOffset).getUint32(0, true));
      if (status !== MEM_OK) {
        outcome = OUTCOME.Abort;
        break;
      }
      done += size;
      const next = transaction.addrLo + size;
      transaction.addrLo = next >>> 0;
      if (next >= 2 ** 32) transaction.addrHi = (transaction.addrHi + 1) >>> 0;
    }
    this.#smmu.handleInterrupts();
    return outcome;
  }
}
