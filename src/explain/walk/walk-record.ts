/** What an observed walk showed, step by step, as it was. */

import type { Fault } from '../../smmu/fault.ts';
import type { WalkObserver } from '../../smmu/walk-observer.ts';

export interface StructureStep {
  readonly kind: 'structure';
  readonly name: 'L1STD' | 'STE' | 'L1CD' | 'CD';
  /** Physical address. */
  readonly hi: number;
  readonly lo: number;
  /** Where stage 2 stands in between: the address that it translated. */
  readonly ipa: { readonly hi: number; readonly lo: number } | undefined;
  readonly words: Uint32Array;
}
export interface StageStep {
  readonly kind: 'stage';
  readonly stage: 1 | 2;
  readonly hi: number;
  readonly lo: number;
  readonly cls: number;
}
export interface DescriptorStep {
  readonly kind: 'descriptor';
  readonly stage: 1 | 2;
  readonly level: number;
  readonly atHi: number;
  readonly atLo: number;
  readonly hi: number;
  readonly lo: number;
  /** HIERARCHY bits of the tables above. */
  readonly hierarchy: number;
}
export interface PermissionsStep {
  readonly kind: 'permissions';
  readonly stage: 1 | 2;
  readonly permissions: number;
  readonly need: number;
}
export interface LeafStep {
  readonly kind: 'leaf';
  readonly stage: 1 | 2;
  readonly hi: number;
  readonly lo: number;
  readonly permissions: number;
  readonly log2Size: number;
}
export type SeenStep = StructureStep | StageStep | DescriptorStep | PermissionsStep | LeafStep;

/** Where it ended, if it did not succeed. */
export interface SeenFault {
  /** EventType. */
  readonly type: number;
  readonly s2: boolean;
  readonly fetchHi: number;
  readonly fetchLo: number;
}

export class WalkRecord implements WalkObserver {
  readonly steps: SeenStep[] = [];
  fault: SeenFault | undefined;

  structure(name: StructureStep['name'], hi: number, lo: number, words: Uint32Array): void {
    // What stage 2 has just found is the place.
    const last = this.steps.at(-1);
    const found = last?.kind === 'leaf' ? last : undefined;
    this.steps.push({
      kind: 'structure',
      name,
      hi: found?.hi ?? hi,
      lo: found?.lo ?? lo,
      ipa: found === undefined ? undefined : { hi, lo },
      words: words.slice(),
    });
  }

  stage(stage: 1 | 2, hi: number, lo: number, cls: number): void {
    this.steps.push({ kind: 'stage', stage, hi, lo, cls });
  }

  descriptor(
    stage: 1 | 2,
    level: number,
    atHi: number,
    atLo: number,
    hi: number,
    lo: number,
    hierarchy: number,
  ): void {
    this.steps.push({ kind: 'descriptor', stage, level, atHi, atLo, hi, lo, hierarchy });
  }

  permissions(stage: 1 | 2, permissions: number, need: number): void {
    this.steps.push({ kind: 'permissions', stage, permissions, need });
  }

  leaf(stage: 1 | 2, hi: number, lo: number, permissions: number, log2Size: number): void {
    this.steps.push({ kind: 'leaf', stage, hi, lo, permissions, log2Size });
  }

  stopped(type: number, { s2, fetchHi, fetchLo }: Readonly<Fault>): void {
    this.fault = { type, s2, fetchHi, fetchLo };
  }

  /** The words of a structure that was read, or undefined. */
  wordsOf(name: StructureStep['name']): StructureStep | undefined {
    return this.steps.find((step): step is StructureStep => step.kind === 'structure' && step.name === name);
  }
}
