/** The reference guest on the real SMMU model, which serves the devices itself. */

import { ReferenceGuest, type ReferenceGuestOptions } from '../../src/guest/reference-guest.ts';
import { Scheduler } from '../../src/machine/scheduler.ts';
import { Memory } from '../../src/memory/memory.ts';
import { GUEST_DEFAULT, type IdRegisters } from '../../src/smmu/identification.ts';
import { Smmu } from '../../src/smmu/smmu.ts';
import { OUTCOME, Transaction, Translation } from '../../src/smmu/transaction.ts';

/** 64 MiB of RAM; the driver has the first half, the rest is for DMA. */
export const RAM = 0x4000_0000;
export const RAM_SIZE = 0x400_0000;
export const BUFFERS = RAM + RAM_SIZE / 2;
/** Where messages of interrupts go. */
export const DOORBELL = 0x809_0040;

export class DeviceBench {
  readonly memory = new Memory();
  readonly scheduler = new Scheduler();
  readonly smmu: Smmu;
  readonly guest: ReferenceGuest;
  /** Lines raised, in order. */
  readonly raised: string[] = [];
  /** How stalled transactions ended. */
  readonly resolved: (bigint | string)[] = [];
  /** Interrupts are lost while this is set, as if nothing were wired. */
  unwired = false;
  readonly #transaction = new Transaction();
  readonly #translation = new Translation();

  constructor(ids: IdRegisters = GUEST_DEFAULT, options: Partial<ReferenceGuestOptions> = {}) {
    this.memory.addRam(0, RAM, new Uint8Array(RAM_SIZE));
    this.smmu = new Smmu({
      ids,
      memory: this.memory,
      interrupts: {
        raise: (line) => {
          this.raised.push(line);
          if (!this.unwired) this.scheduler.post(() => this.guest.handleInterrupt(line));
        },
        writeMsi: (hi, lo, data) => {
          if (hi === 0 && lo === DOORBELL) {
            this.scheduler.post(() => this.guest.handleMessage(data));
            return true;
          }
          return this.memory.store32(hi, lo, data) === 0;
        },
      },
      stalls: { resolved: (_stag, _transaction, result) => void this.resolved.push(endOf(result)) },
      defer: () => this.scheduler.post(this.#goOn),
    });
    this.guest = this.newKernel(options);
  }

  /** Another kernel on the same machine, as after a kexec. */
  newKernel(options: Partial<ReferenceGuestOptions> = {}): ReferenceGuest {
    return new ReferenceGuest({
      registers: this.smmu,
      memory: this.memory,
      ram: { base: RAM, size: RAM_SIZE / 2 },
      relax: () => void this.scheduler.run(100),
      maxQueueBytes: 0x1_0000,
      ...options,
    });
  }

  /** Has a device access an IOVA, then delivers what that raised. @returns the address reached, or how it ended. */
  dma(
    sid: number,
    iova: bigint,
    access: { write?: boolean; ssid?: number; mayStall?: boolean } = {},
  ): bigint | string {
    const transaction = this.#transaction;
    transaction.sid = sid;
    transaction.ssv = access.ssid !== undefined;
    transaction.ssid = access.ssid ?? 0;
    transaction.addrHi = Number((iova >> 32n) & 0xffff_ffffn);
    transaction.addrLo = Number(iova & 0xffff_ffffn);
    transaction.write = access.write ?? false;
    transaction.mayStall = access.mayStall ?? false;
    this.smmu.translate(transaction, this.#translation);
    const end = endOf(this.#translation);
    this.scheduler.run();
    return end;
  }

  readonly #goOn = (): void => {
    if (this.smmu.run()) this.scheduler.post(this.#goOn);
  };
}

function endOf({ outcome, paHi, paLo }: Translation): bigint | string {
  if (outcome === OUTCOME.Ok) return (BigInt(paHi) << 32n) | BigInt(paLo);
  return Object.entries(OUTCOME).find(([, code]) => code === outcome)![0];
}

/** Names and addresses of the events that the guest has read, which forgets them. */
export const takeEvents = (guest: ReferenceGuest): string[] =>
  guest.events.splice(0).map(({ name, sid, iova }) => `${name} sid ${sid} iova 0x${iova.toString(16)}`);
