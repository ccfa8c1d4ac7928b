/** The states that were found: each by its fingerprint, with the first way that led to it, which is a shortest. */

import type { Fingerprint } from './fingerprint.ts';
import { FingerprintMap } from './fingerprint-map.ts';
import type { Move } from './schedule.ts';

const ROOT = -1;

export class KnownStates {
  /** Numbers of the states by fingerprint. */
  readonly #numbers = new FingerprintMap();
  /** By number of the state: the state before, the move from there, and the fingerprint. */
  readonly #parents: number[] = [];
  readonly #moves: number[] = [];
  readonly #prints: Fingerprint[] = [];
  readonly #moveNumbers = new Map<string, number>();
  readonly #moveList: Move[] = [];

  get count(): number {
    return this.#parents.length;
  }

  /** The state before everything. */
  enterFirst(print: Fingerprint): void {
    this.#numbers.enter(print, 0);
    this.#remember(ROOT, 0, print);
  }

  /** A move led from one state to another. @returns the numbers of the move and of the state where it led. */
  enter(
    from: number,
    move: Move,
    print: Fingerprint,
  ): { readonly number: number; readonly to: number; readonly isNew: boolean } {
    const number = this.#numberOf(move);
    const next = this.count;
    const known = this.#numbers.enter(print, next);
    if (known === undefined) this.#remember(from, number, print);
    return { number, to: known ?? next, isNew: known === undefined };
  }

  print(state: number): Fingerprint {
    return this.#prints[state];
  }

  /** The move with this number. */
  move(number: number): Move {
    return this.#moveList[number];
  }

  /** The shortest way to a state. */
  pathTo(state: number): Move[] {
    const path: Move[] = [];
    for (let at = state; this.#parents[at] !== ROOT; at = this.#parents[at])
      path.push(this.#moveList[this.#moves[at]]);
    return path.toReversed();
  }

  #remember(parent: number, move: number, print: Fingerprint): void {
    this.#parents.push(parent);
    this.#moves.push(move);
    this.#prints.push(print);
  }

  #numberOf(move: Move): number {
    const key = move.failures.length === 0 ? String(move.event) : JSON.stringify(move);
    let number = this.#moveNumbers.get(key);
    if (number === undefined) {
      number = this.#moveList.push(move) - 1;
      this.#moveNumbers.set(key, number);
    }
    return number;
  }
}
