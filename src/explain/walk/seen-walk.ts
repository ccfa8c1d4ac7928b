/** A walk as it was observed, with what its STE and CD mean: by the decoders of the device itself. */

import { Features } from '../../smmu/features.ts';
import type { IdRegisters } from '../../smmu/identification.ts';
import { illegalCdField } from '../../smmu/cd-legality.ts';
import { illegalSteField } from '../../smmu/ste-legality.ts';
import { StreamContext } from '../../smmu/stream-context.ts';
import type { Half, World } from '../../smmu/stage-one.ts';
import type { Outcome, Transaction, Translation } from '../../smmu/transaction.ts';
import { CR0, CR2, OFFSET, type RegisterName } from '../../spec/registers.ts';
import { STE } from '../../spec/ste.ts';
import type { WalkRecord } from './walk-record.ts';

/** What of an SMMU is looked at. */
export interface WalkedDevice {
  readonly ids: IdRegisters;
  /** Page 0. */
  readonly registers: Uint32Array;
}

export class SeenWalk {
  readonly device: WalkedDevice;
  readonly features: Features;
  readonly transaction: Transaction;
  readonly result: Translation;
  readonly outcome: Outcome;
  readonly record: WalkRecord;
  /** Decoded as far as the STE and the CD were read and are legal. */
  readonly context = new StreamContext();
  readonly ste: Uint32Array | undefined;
  readonly cd: Uint32Array | undefined;

  constructor(
    device: WalkedDevice,
    transaction: Transaction,
    result: Translation,
    outcome: Outcome,
    record: WalkRecord,
  ) {
    this.device = device;
    this.features = new Features(device.ids);
    this.transaction = transaction;
    this.result = result;
    this.outcome = outcome;
    this.record = record;
    this.ste = record.wordsOf('STE')?.words;
    this.cd = record.wordsOf('CD')?.words;
    const { features, context, ste, cd } = this;
    if (ste === undefined || illegalSteField(ste, features) !== undefined) return;
    context.setSte(ste, features);
    if (cd !== undefined && illegalCdField(cd, ste, this.world, features) === undefined)
      context.setStage1(ste, cd, this.world, features);
  }

  /** The regime that stage 1 is of; only with an STE that is legal. */
  get world(): World {
    return this.context.world(this.ste!, this.features, CR2.E2H.of(this.register('CR2')) === 1);
  }

  /** Low word of a register. */
  register(name: RegisterName): number {
    return this.device.registers[OFFSET[name] >>> 2];
  }

  get smmuEnabled(): boolean {
    return CR0.SMMUEN.of(this.register('CR0')) === 1;
  }

  /** Both stages. */
  get nested(): boolean {
    return this.ste !== undefined && STE.Config.get(this.ste) === 7;
  }

  /** Whether an address belongs to TTB1: bit 55 (3.4.1). */
  isUpper(hi: number): boolean {
    return (hi & 0x0080_0000) !== 0;
  }

  /** The half of the address space that an input address of stage 1 is in. */
  half(hi: number): Half {
    return this.isUpper(hi) ? this.context.s1.upper : this.context.s1.lower;
  }
}
