/** What a run tells the outside, as it happens: one object a fact. `--json` prints them as they are. */

import { describeCall } from '../accel/call-sentences.ts';
import { callArguments, callResult, type ReconcileReport } from '../accel/report.ts';
import type { WalkExplanation } from '../explain/walk/walk.ts';
import type { EventAccount } from './event-account.ts';

/** The two conditions and what follows from them. */
export interface VeventqState {
  /** CR0.EVENTQEN, as acknowledged. */
  readonly eventqen: boolean;
  /** Id of the vIOMMU, or null if there is none. */
  readonly viommu: number | null;
  readonly veventq: { readonly id: number; readonly depth: number } | null;
  /** What the step did to the vEVENTQ: allocated, reallocated, closed, kept, absent, refused. */
  readonly change: string;
  /** Why it was or was not allocated, or was closed, in one sentence. */
  readonly why: string;
  /** What each plugged device is attached to. */
  readonly attached: Readonly<Record<string, string>>;
}

export type RunEvent =
  | {
      readonly kind: 'scenario';
      readonly title: string;
      readonly about: string | null;
      readonly guest: string;
      readonly host: string;
    }
  | { readonly kind: 'case'; readonly number: number; readonly title: string }
  | { readonly kind: 'step'; readonly line: number; readonly action: string; readonly text: string }
  | ({ readonly kind: 'state' } & VeventqState)
  /** One call that reconcile made to the host. */
  | {
      readonly kind: 'operation';
      readonly operation: string;
      /** What it does, as a sentence. */
      readonly text: string;
      readonly detail: string;
      readonly result: string;
    }
  | {
      readonly kind: 'dma';
      readonly device: string;
      readonly access: 'read' | 'write';
      readonly iova: string;
      readonly bytes: number;
      readonly outcome: string;
      readonly text: string;
    }
  /** An event record as the guest's driver took it from its queue. */
  | {
      readonly kind: 'event';
      readonly type: string;
      readonly device: string | null;
      readonly sid: string;
      readonly words: readonly string[];
      readonly text: string;
    }
  /** The way of an access through the guest's tables. */
  | {
      readonly kind: 'walk';
      readonly device: string;
      readonly walk: WalkExplanation;
      /** The same, in lines. */
      readonly text: string;
    }
  /** Something that a person following along may want to know. */
  | { readonly kind: 'note'; readonly text: string }
  /** A line of the guest kernel's log. */
  | { readonly kind: 'guest'; readonly text: string }
  /** A line of the host kernel's log. */
  | { readonly kind: 'host'; readonly text: string }
  | { readonly kind: 'expectation'; readonly line: number; readonly ok: boolean; readonly text: string }
  /** What became of all events of a case, when it ends. */
  | ({ readonly kind: 'events' } & EventAccount)
  | { readonly kind: 'end'; readonly cases: number; readonly expectations: number; readonly failed: number };

export type Reporter = (event: RunEvent) => void;

/** Tells of each call that a reconcile made to the host. */
export function reportOperations(report: Reporter, operations: ReconcileReport['operations']): void {
  for (const call of operations)
    report({
      kind: 'operation',
      operation: call.operation,
      text: describeCall(call),
      detail: callArguments(call),
      result: callResult(call),
    });
}
