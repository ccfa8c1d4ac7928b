/**
 * Every interleaving, breadth first: each state that is new is checked, and so the first violation that is found is a
 * shortest one. A state is kept as the way to it, and made again by playing that way, or by going on from another.
 */

import type { Configuration } from './configuration.ts';
import { check, finish } from './checks.ts';
import { fingerprint, stateText, type Fingerprint } from './fingerprint.ts';
import { KnownEdges } from './known-edges.ts';
import { KnownStates } from './known-states.ts';
import type { Exploration, ExploreOptions, Violation } from './exploration.ts';
import type { Problem } from './problem.ts';
import { type Move, possibleFailures, Walk } from './schedule.ts';

/** Transitions between two looks at the clock. */
const LOOK = 64;
/** Moves after which a walk ends, so that what a world keeps of its past stays small. */
const LONGEST_WALK = 200;

const ANOTHER_STATE: Problem = {
  invariant: 'deterministic',
  text: 'The same steps led to another state than before.',
};

/** A move that is still to be tried in some state. */
interface Untried {
  readonly move: Move;
  /** Calls of the move up to the last that fails in it. */
  readonly after: number;
}

class Explorer {
  readonly #configuration: Configuration;
  readonly #options: ExploreOptions;
  readonly #known = new KnownStates();
  /** States whose followers are being tried: this one and those up to {@link #last}. */
  #first = 0;
  #last = 0;
  /** By number of the state: what is left to try, once a walk has been there. */
  readonly #untried = new Map<number, Untried[]>();
  readonly #edges = new KnownEdges();
  #transitions = 0;
  #depth = 0;
  #waiting = 0;
  #violation: Violation | undefined;
  /** One that may not be a shortest. */
  #suspected: Violation | undefined;
  #stopped = false;

  constructor(configuration: Configuration, options: ExploreOptions) {
    this.#configuration = configuration;
    this.#options = options;
  }

  run(): Exploration {
    const walk = new Walk(this.#configuration);
    const print = this.#print(walk);
    this.#known.enterFirst(print);
    const problem = check(walk.world) ?? finish(walk.world);
    if (problem !== undefined) this.#violation = this.#report(walk, problem, true);
    const levels = [1];
    while (this.#depth < this.#limit && this.#first < this.#known.count && !this.#over) {
      this.#last = this.#known.count;
      this.#depth += 1;
      for (let state = this.#first; state < this.#last && !this.#over; state++) {
        this.#waiting = this.#last - state;
        if (this.#isMine(state)) this.#expand(state);
      }
      if (this.#over) this.#depth -= 1;
      levels.push(this.#known.count - this.#last);
      this.#first = this.#last;
      this.#untried.clear();
    }
    this.#violation ??= this.#suspected;
    const exhausted = this.#first >= this.#known.count;
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
      states: this.#known.count,
      transitions: this.#transitions,
      levels,
      violation: this.#violation,
    };
  }

  /** Events in a schedule that is tried, at most: longer ones than a known violation are of no use. */
  get #limit(): number {
    return Math.min(this.#options.depth, this.#suspected?.schedule.length ?? Infinity);
  }

  get #over(): boolean {
    return this.#stopped || this.#violation !== undefined;
  }

  /** Whether the followers of a state are this shard's to try. Depth is already that of the followers. */
  #isMine(state: number): boolean {
    const { shard } = this.#options;
    if (shard === undefined || this.#depth !== shard.depth + 1) return true;
    return this.#known.print(state).hi % shard.of === shard.number - 1;
  }

  /**
   * Tries all that can happen in a state. A world that comes to a state that is known goes on from there, if something
   * is left to try there or one known move away: that is cheaper than making it anew.
   */
  #expand(state: number): void {
    while (this.#untried.get(state)?.length !== 0 && !this.#over) {
      const walk = this.#replay(state);
      let at = walk === undefined ? undefined : state;
      while (at !== undefined && !this.#over && walk!.moves.length < LONGEST_WALK) at = this.#goOn(walk!, at);
    }
  }

  /** Takes one move from a state. @returns the state where it led; undefined if the walk is of no more use. */
  #goOn(walk: Walk, at: number): number | undefined {
    if (this.#isLeft(at)) {
      let untried = this.#untried.get(at);
      if (untried === undefined) {
        untried = walk.enabled().map((event) => ({ move: { event, failures: [] }, after: 0 }));
        this.#untried.set(at, untried);
      }
      const next = untried.shift();
      if (next !== undefined) return this.#tryMove(at, walk, next, untried);
    }
    const way = this.#edges.way(at, (state) => this.#isLeft(state));
    for (const { move, to } of way) {
      walk.take(this.#known.move(move));
      if (!this.#isIn(walk, to)) return undefined;
    }
    return way.at(-1)?.to;
  }

  /** Whether there is something left to try in a state at this depth. */
  #isLeft(state: number): boolean {
    if (state < this.#first || state >= this.#last) return false;
    return this.#untried.get(state)?.length !== 0 && this.#isMine(state);
  }

  /** @returns the number of the state where the move led; undefined if the walk is of no more use. */
  #tryMove(state: number, walk: Walk, { move, after }: Untried, untried: Untried[]): number | undefined {
    this.#transitions += 1;
    if (this.#transitions % LOOK === 0) this.#look();
    const immediate = walk.take(move) ?? check(walk.world) ?? walk.found;
    if (immediate !== undefined) {
      if (this.#isShortest(walk, state)) {
        this.#violation = this.#report(walk, immediate, false);
        return undefined;
      }
      this.#suspect(walk, immediate, false);
      const again = this.#replay(state);
      return again && this.#tryMove(state, again, { move, after }, untried);
    }
    if (walk.failuresLeft > 0)
      // One failure before two: what may fail besides comes behind all that is there.
      for (const { at, failure } of possibleFailures(walk.world.kernel.ioctls, after))
        untried.push({ move: { event: move.event, failures: [...move.failures, failure] }, after: at + 1 });
    const print = this.#print(walk);
    const { number, to, isNew } = this.#known.enter(state, move, print);
    this.#edges.add(state, { move: number, to });
    if (!isNew) return to;
    const steps = walk.actions.length;
    const late = finish(walk.world);
    walk.actions.length = steps;
    if (late !== undefined) this.#judge(state, move, walk, late);
    return undefined;
  }

  /** Whether a walk has just come from a state to which it went by the shortest way. */
  #isShortest(walk: Walk, state: number): boolean {
    return walk.moves.length === this.#known.pathTo(state).length + 1;
  }

  /** A problem showed by use after a move from a state: finds out whether it does by the shortest way too. */
  #judge(state: number, move: Move, walk: Walk, problem: Problem): void {
    if (this.#isShortest(walk, state)) {
      this.#violation = this.#report(walk, problem, true);
      return;
    }
    const short = this.#replay(state);
    if (short === undefined) return;
    short.take(move);
    const steps = short.actions.length;
    const again = finish(short.world);
    short.actions.length = steps;
    if (again === undefined) this.#suspect(walk, problem, true);
    else this.#violation = this.#report(short, again, true);
  }

  /**
   * A walk that has come a long way met a problem that is not there by the shortest way to the same state: it depends on
   * something else. A shorter schedule may show that too, so the search goes on as long as there can be one.
   */
  #suspect(walk: Walk, problem: Problem, byUse: boolean): void {
    if (walk.moves.length >= (this.#suspected?.schedule.length ?? Infinity)) return;
    this.#suspected = this.#report(walk, problem, byUse);
  }

  #print(walk: Walk): Fingerprint {
    return fingerprint(`${walk.text}\n${stateText(walk.world)}`);
  }

  /** Makes a state again. @returns undefined if it is not the same as the first time. */
  #replay(state: number): Walk | undefined {
    const walk = new Walk(this.#configuration);
    for (const move of this.#known.pathTo(state)) walk.take(move);
    if (this.#isIn(walk, state)) return walk;
    this.#violation = this.#report(walk, ANOTHER_STATE, false);
    return undefined;
  }

  /** Whether a walk is in this state, as it has to be. */
  #isIn(walk: Walk, state: number): boolean {
    const print = this.#print(walk);
    const { hi, lo } = this.#known.print(state);
    return print.hi === hi && print.lo === lo;
  }

  #report({ moves, actions }: Walk, problem: Problem, byUse: boolean): Violation {
    const schedule = moves.map((move) => this.#nameOf(move));
    return { problem, schedule, actions: [...actions], byUse };
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
      states: this.#known.count,
      transitions: this.#transitions,
      waiting: this.#waiting,
    });
  }
}

/** Explores a configuration. The result depends on nothing but the arguments. */
export function explore(configuration: Configuration, options: ExploreOptions): Exploration {
  return new Explorer(configuration, options).run();
}
