/** DMA of a device: through its SMMU, block by block, into host-physical memory. */

import { MEM_OK } from '../../memory/memory.ts';
import { PageRequest } from '../../smmu/page-request.ts';
import { KIND, type Kind, OUTCOME, type Outcome, Transaction, Translation } from '../../smmu/transaction.ts';
import { PRI_RESP } from '../../spec/commands.ts';
import type { ArmSmmu } from './arm-smmu-v3/arm-smmu.ts';

/** Nothing larger is copied after one translation. */
const MAX_LOG2_BLOCK = 30;
const BYTES_32 = 4;
/** PRGIndex has nine bits. */
const GROUPS = 512;

/** A transfer under way. */
interface Transfer {
  readonly iovaHi: number;
  readonly iovaLo: number;
  readonly bytes: Uint8Array;
  readonly write: boolean;
  done: number;
}

export interface DeviceDmaOptions {
  readonly smmu: ArmSmmu;
  readonly sid: number;
  /** Faults may stall transfers, if the SMMU can. */
  readonly mayStall: boolean;
  /** Whether it asks for pages now (ATS and PRI) before it uses them. */
  readonly mayRequest: () => boolean;
  /** Told how a transfer ended that had to wait. */
  readonly ended: (outcome: Outcome) => void;
}

export class DeviceDma {
  readonly #smmu: ArmSmmu;
  readonly #ended: (outcome: Outcome) => void;
  readonly #mayRequest: () => boolean;
  readonly #request = new PageRequest();
  /** Reused: one transaction is under way at a time. */
  readonly #transaction = new Transaction();
  readonly #translation = new Translation();

  constructor({ smmu, sid, mayStall, mayRequest, ended }: DeviceDmaOptions) {
    this.#smmu = smmu;
    this.#ended = ended;
    this.#mayRequest = mayRequest;
    this.#transaction.sid = sid;
    this.#transaction.mayStall = mayStall;
    this.#request.sid = sid;
    this.#request.last = true;
  }

  /**
   * Reads or writes; stops at the first block that does not translate or meets no memory. A transfer that stalls goes on
   * by itself when it is resumed; the bytes have to stay until then.
   */
  transfer(iovaHi: number, iovaLo: number, bytes: Uint8Array, write: boolean): Outcome {
    const outcome = this.#run({ iovaHi, iovaLo, bytes, write, done: 0 });
    this.#smmu.handleInterrupts();
    return outcome;
  }

  #run(transfer: Transfer): Outcome {
    const { bytes, write } = transfer;
    while (transfer.done < bytes.length) {
      if (this.#mayRequest() && !this.#granted(transfer)) {
        this.#askFor(transfer);
        return OUTCOME.Stalled;
      }
      const outcome = this.#translate(transfer);
      if (outcome === OUTCOME.Stalled) {
        this.#smmu.whenResumed(this.#translation.stag, (resumed) => this.#resume(transfer, resumed));
        return outcome;
      }
      if (outcome !== OUTCOME.Ok) {
        // Reads return zero; that is what RAZ means.
        if (outcome === OUTCOME.RazWi && !write) bytes.fill(0, transfer.done);
        return outcome;
      }
      const size = this.#blockLeft(bytes.length - transfer.done);
      if (!this.#move(bytes.subarray(transfer.done, transfer.done + size), write)) return OUTCOME.Abort;
      transfer.done += size;
    }
    return OUTCOME.Ok;
  }

  #translate(transfer: Transfer, kind: Kind = KIND.Untranslated): Outcome {
    const transaction = this.#transaction;
    const lo = transfer.iovaLo + transfer.done;
    transaction.kind = kind;
    transaction.addrLo = lo >>> 0;
    transaction.addrHi = (transfer.iovaHi + Math.floor(lo / 2 ** 32)) >>> 0;
    // A Translation Request is a read that says whether it wants to write.
    transaction.write = transfer.write && kind === KIND.Untranslated;
    transaction.noWrite = !transfer.write;
    return this.#smmu.model.translate(transaction, this.#translation);
  }

  /** Asks with ATS whether a block is there. What the SMMU does not answer, the transfer itself will show. */
  #granted(transfer: Transfer): boolean {
    const outcome = this.#translate(transfer, KIND.AtsRequest);
    if (outcome !== OUTCOME.Ok) return true;
    return transfer.write ? this.#translation.writable : this.#translation.readable;
  }

  /** Asks software for the page, and goes on with its answer. */
  #askFor(transfer: Transfer): void {
    const request = this.#request;
    const { addrHi, addrLo } = this.#transaction;
    request.addrHi = addrHi;
    request.addrLo = addrLo;
    request.read = !transfer.write;
    request.write = transfer.write;
    request.prgIndex = (request.prgIndex + 1) % GROUPS;
    this.#smmu.whenAnswered(request.sid, request.prgIndex, (response) => {
      const outcome = response === PRI_RESP.Success ? this.#run(transfer) : OUTCOME.Abort;
      if (outcome !== OUTCOME.Stalled) this.#ended(outcome);
    });
    this.#smmu.model.pageRequest(request);
  }

  /** Bytes for which the last translation holds, at most `wanted`. */
  #blockLeft(wanted: number): number {
    const block = 2 ** Math.min(this.#translation.log2Size, MAX_LOG2_BLOCK);
    return Math.min(wanted, block - (this.#transaction.addrLo % block));
  }

  /** @returns false if there is no memory. */
  #move(piece: Uint8Array, write: boolean): boolean {
    const { memory } = this.#smmu.host;
    const { paHi, paLo } = this.#translation;
    if (!write) return memory.readBytes(paHi, paLo, piece) === MEM_OK;
    if (memory.writeBytes(paHi, paLo, piece) === MEM_OK) return true;
    // A device, such as the doorbell of message interrupts.
    if (piece.length !== BYTES_32 || paLo % BYTES_32 !== 0) return false;
    const value = new DataView(piece.buffer, piece.byteOffset).getUint32(0, true);
    return memory.store32(paHi, paLo, value) === MEM_OK;
  }

  #resume(transfer: Transfer, resumed: Outcome): void {
    const outcome = resumed === OUTCOME.Ok ? this.#run(transfer) : resumed;
    if (outcome !== OUTCOME.Stalled) this.#ended(outcome);
  }
}
