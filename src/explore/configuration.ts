/** A small machine to explore, with what can happen to it. */

import type { Action, World, WorldDevice } from './world.ts';

/** Something that can happen, one atomic step. */
export interface Event {
  readonly name: string;
  /** Whether it can happen now; without this always. What would change nothing is left out. */
  readonly enabled: (world: World) => boolean;
  /** The step, or undefined for one that only the driver's program knows. */
  readonly action: (world: World) => Action | undefined;
  /** What comes right before the step, and never fails: for what takes several commands and is one thing. */
  readonly first?: readonly Action[];
  /** What it does to the place in the driver's program. */
  readonly program?: 'next' | 'restart';
}

export interface Configuration {
  readonly name: string;
  readonly about: string;
  readonly devices: readonly WorldDevice[];
  /** Steps before the first state. */
  readonly start: readonly Action[];
  readonly events: readonly Event[];
  /** What the guest does in this order, if there is an event with `program`. */
  readonly program: readonly Action[];
  /** Calls to the host that may fail in one schedule. */
  readonly failures: number;
  /** Steps to which it is explored unless told otherwise. */
  readonly depth: number;
}
