/** What the explanation of a walk is made of. Everything is text or a small number, so that JSON carries it as it is. */

import type { DecodedField } from '../decode.ts';

/** One step of the way from StreamID and address to a physical address. */
export interface WalkStep {
  readonly kind: 'register' | 'structure' | 'stage' | 'descriptor' | 'permissions' | 'output';
  /** 1 for what stage 2 does for the sake of a CD or of stage 1's tables, else 0. */
  readonly depth: 0 | 1;
  /** The stage that it belongs to, if any. */
  readonly stage?: 1 | 2;
  /** 'STE', 'CD', 'stage 1', 'level 2' and so on. */
  readonly name: string;
  /** Where it was read: a physical address. */
  readonly address?: string;
  /** 64-bit words of a structure or descriptor, lowest first. */
  readonly words?: readonly string[];
  /** What it says, in sentences. */
  readonly text: string;
  /** Its fields that decide something: those that are not zero. */
  readonly fields: readonly DecodedField[];
}

/** The one thing that stopped the transaction. */
export interface WalkCause {
  /** The field: 'CR0.SMMUEN', 'STE.V', 'CD.A', 'AF', 'AP[2]'. */
  readonly field: string;
  /** Where it stands: 'the level 3 descriptor of stage 1'. */
  readonly of: string;
  /** Physical address of the structure or descriptor. */
  readonly address?: string;
  /** Bit numbers in the structure, such as '[10]'. */
  readonly bits?: string;
  readonly value?: string;
  /** A sentence. */
  readonly text: string;
  /** What is in the way besides: correcting `field` alone would not be enough. */
  readonly also: readonly string[];
}

/** What a transaction would meet now. */
export interface WalkExplanation {
  readonly sid: number;
  readonly ssid?: number;
  readonly iova: string;
  readonly access: 'read' | 'write' | 'execute';
  readonly privileged: boolean;
  readonly outcome: 'ok' | 'abort' | 'raz-wi' | 'unsupported-request' | 'completer-abort';
  /** Output address, with outcome 'ok'. */
  readonly pa?: string;
  /** log2 of the aligned block around it for which the answer holds. */
  readonly log2Size?: number;
  /** The event that names what stopped it. */
  readonly event?: string;
  /** Whether that event is recorded. */
  readonly recorded?: boolean;
  /** One or two sentences. */
  readonly summary: string;
  readonly cause?: WalkCause;
  readonly steps: readonly WalkStep[];
}
