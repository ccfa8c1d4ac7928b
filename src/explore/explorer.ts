/**
 * Every interleaving, breadth first: each state that is new is checked, and so the first violation that is found is a
 * shortest one. A state is kept as the way to it, and made again by playing that way.
 */

import type { Configuration } from './configurations.ts';
import { check, finish } from './checks.ts';
import { fingerprint, stateText, type Fingerprint } from './fingerprint.ts';
import { FingerprintSet } from './fingerprint-set.ts';
import type { Problem } from './problem.ts';
import { type Move, possibleFailures, Walk } from './schedule.ts';
import type { Failure } from './watched-kernel.ts';
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

/** Transitions between two looks at the clock. */
const LOOK = 64;
const ROOT = -1;

class Explorer {
  readonly #configuration: Configuration;
  readonly #options: ExploreOptions;
  readonly #known = new FingerprintSet();
  /** By number of the state: the state before, the move from there, and the fingerprint. */
  readonly #parents: number[] = [];
  readonly #moves: number[] = [];
  readonly #prints: Fingerprint[] = [];
  readonly #moveNumbers = new Map<string, number>();
  readonly #moveList: Move[] = [];
  #transitions = 0;
  #depth = 0;
  #waiting = 0;
  #violation: Violation | undefined;
  #stopped = false;

  constructor(configuration: Configuration, options: ExploreOptions) {
    this.#configuration = configuration;
    this.#options = options;
  }

  run(): Exploration {
    const walk = new Walk(this.#configuration);
    const print = this.#print(walk);
    this.#remember(ROOT, 0, print);
    const problem = check(walk.world) ?? finish(walk.world);
    if (problem !== undefined) this.#report([], walk, problem, true);
    const levels = [1];
    let first = 0;
    while (this.#depth < this.#options.depth && first < this.#parents.length && !this.#over) {
      const last = this.#parents.length;
      this.#depth += 1;
      for (let state = first; state < last && !this.#over; state++) {
        this.#waiting = last - state;
        if (this.#isMine(state)) this.#expand(state);
      }
      if (this.#over) this.#depth -= 1;
      levels.push(this.#parents.length - last);
      first = last;
    }
    const exhausted = first >= this.#parents.length;
    return {
      depth: this.#depth,
      end:
        this.#violation !== undefined
          ? 'violation'
          : this.#stopped
            ? 'stopped'
            : exhausted
              ? 'exhausted'
              : 'depth',
      states: this.#parents.length,
      transitions: this.#transitions,
      levels,
      violation: this.#violation,
    };
  }

  get #over(): boolean {
    return this.#stopped || this.#violation !== undefined;
  }

  /** Whether the followers of a state are this shard's to try. Depth is already that of the followers. */
  #isMine(state: number): boolean {
    const { shard } = this.#options;
    if (shard === undefined || this.#depth !== shard.depth + 1) return true;
    return this.#prints[state].hi % shard.of === shard.number - 1;
  }

  #expand(state: number): void {
    let walk: Walk | undefined = this.#replay(state);
    if (walk === undefined) return;
    const print = this.#prints[state];
    for (const event of walk.enabled()) {
      walk ??= this.#replay(state);
      if (walk === undefined) return;
      const mayFail = walk.failuresLeft > 0;
      const { ioctls } = walk.world.kernel;
      const made = this.#tryMove(state, walk, { event, failures: [] });
      if (this.#over || made === undefined) return;
      const calls = walk.world.kernel.ioctls === ioctls ? [] : walk.world.kernel.ioctls;
      const variants = mayFail ? possibleFailures(calls, 0) : [];
      // What changed nothing can be used again.
      if (made.hi !== print.hi || made.lo !== print.lo) walk = undefined;
      // One failure before two: the list grows while it is gone through.
      const moves = variants.map(({ at, failure }) => ({ move: { event, failures: [failure] }, at }));
      for (const { move, at } of moves) {
        moves.push(...this.#tryFailures(state, move, at));
        if (this.#over) return;
      }
    }
  }

  /** Tries a move in which calls fail. @returns the same with one more failure behind the last, if there may be one. */
  #tryFailures(
    state: number,
    move: { readonly event: number; readonly failures: Failure[] },
    at: number,
  ): { move: { readonly event: number; readonly failures: Failure[] }; at: number }[] {
    const walk = this.#replay(state);
    if (walk === undefined || this.#tryMove(state, walk, move) === undefined) return [];
    if (walk.failuresLeft === 0) return [];
    return possibleFailures(walk.world.kernel.ioctls, at + 1).map((next) => ({
      move: { event: move.event, failures: [...move.failures, next.failure] },
      at: next.at,
    }));
  }

  /** @returns the fingerprint of where the move leads; undefined after a violation. */
  #tryMove(state: number, walk: Walk, move: Move): Fingerprint | undefined {
    this.#transitions += 1;
    if (this.#transitions % LOOK === 0) this.#look();
    const immediate = walk.take(move) ?? check(walk.world);
    const { ioctls } = walk.world.kernel;
    if (immediate !== undefined) {
      this.#report([...this.#pathTo(state), move], walk, immediate, false);
      return undefined;
    }
    const print = this.#print(walk);
    if (!this.#known.add(print)) return print;
    const actions = walk.actions.length;
    this.#enter(state, move, print);
    const late = finish(walk.world);
    // The calls of the move itself are still wanted.
    walk.world.kernel.ioctls = ioctls;
    if (late === undefined) return print;
    walk.actions.length = actions;
    this.#report([...this.#pathTo(state), move], walk, late, true);
    return undefined;
  }

  #print(walk: Walk): Fingerprint {
    return fingerprint(`${walk.text}\n${stateText(walk.world)}`);
  }

  #remember(parent: number, move: number, print: Fingerprint): void {
    this.#known.add(print);
    this.#parents.push(parent);
    this.#moves.push(move);
    this.#prints.push(print);
  }

  #enter(parent: number, move: Move, print: Fingerprint): void {
    const key = JSON.stringify(move);
    let number = this.#moveNumbers.get(key);
    if (number === undefined) {
      number = this.#moveList.push(move) - 1;
      this.#moveNumbers.set(key, number);
    }
    this.#remember(parent, number, print);
  }

  #pathTo(state: number): Move[] {
    const path: Move[] = [];
    for (let at = state; this.#parents[at] !== ROOT; at = this.#parents[at])
      path.push(this.#moveList[this.#moves[at]]);
    return path.toReversed();
  }

  /** Makes a state again. @returns undefined if it is not the same as the first time. */
  #replay(state: number): Walk | undefined {
    const walk = new Walk(this.#configuration);
    for (const move of this.#pathTo(state)) walk.take(move);
    const print = this.#print(walk);
    const { hi, lo } = this.#prints[state];
    if (print.hi === hi && print.lo === lo) return walk;
    this.#report(
      this.#pathTo(state),
      walk,
      { invariant: 'deterministic', text: 'The same steps led to another state than before.' },
      false,
    );
    return undefined;
  }

  #report(path: readonly Move[], walk: Walk, problem: Problem, byUse: boolean): void {
    this.#violation = {
      problem,
      schedule: path.map((move) => this.#nameOf(move)),
      actions: [...walk.actions],
      byUse,
    };
  }

  #nameOf({ event, failures }: Move): string {
    const failing = failures.map(({ ioctl, nth, errno }) => `${ioctl} ${nth}: ${errno}`);
    const { name } = this.#configuration.events[event];
    return failing.length === 0 ? name : `${name} (${failing.join(', ')})`;
  }

  #look(): void {
    if (this.#options.stop?.() === true) this.#stopped = true;
    this.#options.progress?.({
      depth: this.#depth,
      states: this.#parents.length,
      transitions: this.#transitions,
      waiting: this.#waiting,
    });
  }
}

/** Explores a configuration. The result depends on nothing but the arguments. */
export function explore(configuration: Configuration, options: ExploreOptions): Exploration {
  return new Explorer(configuration, options).run();
}
