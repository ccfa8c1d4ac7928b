/** What is asked of an exploration, and what it tells. */

import type { Problem } from './problem.ts';
import type { Action } from './world.ts';

export interface ExploreOptions {
  /** Events in a schedule, at most. */
  readonly depth: number;
  /** Asked now and then; true ends the exploration where it is. */
  readonly stop?: () => boolean;
  /** Told now and then how far it is. */
  readonly progress?: (progress: Progress) => void;
  /** Explores only the states beyond `depth` whose fingerprint falls to this share. */
  readonly shard?: Shard;
}

export interface Shard {
  /** From 1. */
  readonly number: number;
  readonly of: number;
  /** Length of the schedules at which the states are shared out; all explore what is before. */
  readonly depth: number;
}

export interface Progress {
  /** Length of the schedules that are being tried. */
  readonly depth: number;
  readonly states: number;
  readonly transitions: number;
  /** States whose followers are still to be tried at this depth. */
  readonly waiting: number;
}

export interface Violation {
  readonly problem: Problem;
  /** Events of the schedule by name, with the calls that failed. */
  readonly schedule: readonly string[];
  /** Steps from the very beginning. */
  readonly actions: readonly Action[];
  /** It showed only by use: the schedule needs the final check. */
  readonly byUse: boolean;
}

export interface Exploration {
  /** Every schedule of this many events was tried. */
  readonly depth: number;
  /** Why it ended: all states are known, the depth was reached, time was up, or something was found. */
  readonly end: 'exhausted' | 'depth' | 'stopped' | 'violation';
  readonly states: number;
  readonly transitions: number;
  /** New states by the length of the shortest schedule to them. */
  readonly levels: readonly number[];
  readonly violation: Violation | undefined;
}
