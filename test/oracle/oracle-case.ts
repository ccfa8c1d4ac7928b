import type { Step, StepResult, Vector } from '../../src/conformance/vector.ts';

/** What is to be done with an SMMU: a conformance vector (src/conformance/vector.ts) without results. */
export interface OracleCase {
  readonly id: string;
  readonly cat: string;
  /** The template, and what was varied. */
  readonly name: string;
  readonly mem: readonly (readonly [address: string, hexBytes: string])[];
  /** Pages of 4 KiB that the translations lead to; the word at PA p is 0x8000_0000 | p >> 2, so that a read tells p. */
  readonly data: readonly string[];
  readonly eventq: { readonly base: string; readonly log2: number };
  readonly steps: readonly Step[];
}

/** What came of it. */
export interface CaseResult {
  /** One per step. */
  out: StepResult[];
  /** Registers after the last step. */
  final: Record<string, string>;
  /** The process ended; `out` has no results then. */
  crashed?: string;
}

/** The registers of {@link CaseResult.final} with their offsets. */
export const FINAL_REGISTERS = {
  CR0: 0x20,
  CR0ACK: 0x24,
  GBPA: 0x44,
  GERROR: 0x60,
  GERRORN: 0x64,
  STRTAB_BASE_CFG: 0x88,
  CMDQ_PROD: 0x98,
  CMDQ_CONS: 0x9c,
  EVENTQ_PROD: 0x100a8,
  EVENTQ_CONS: 0x100ac,
} as const;

export const RAM_FIRST = 0x4000_0000;
export const RAM_END = 0x1_c000_0000;

export const EVENT_BYTES = 32;

export const toHex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** The case as the model's runner takes it. */
export const asVector = (given: OracleCase): Vector => ({
  ...given,
  expected: { out: [], final: [], masks: [] },
});
