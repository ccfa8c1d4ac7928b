/** Where known moves of known states led: a world that is in one of them gets to others without being made anew. */

export interface Edge {
  /** Number of the move. */
  readonly move: number;
  /** Number of the state where it led. */
  readonly to: number;
}

/** Moves that cost about as much as a new world. */
const LONGEST_WAY = 6;
/** States that are looked at for one way. */
const MOST_LOOKED_AT = 400;
/** Edges that are kept; beyond, those of the oldest states are forgotten. */
const MOST_KEPT = 2_000_000;

export class KnownEdges {
  /** By state, the oldest first. */
  readonly #edges = new Map<number, Edge[]>();
  #kept = 0;

  add(from: number, edge: Edge): void {
    const edges = this.#edges.get(from);
    if (edges === undefined) this.#edges.set(from, [edge]);
    else edges.push(edge);
    this.#kept += 1;
    if (this.#kept > MOST_KEPT) this.#forgetOldest();
  }

  #forgetOldest(): void {
    for (const [state, edges] of this.#edges) {
      this.#edges.delete(state);
      this.#kept -= edges.length;
      return;
    }
  }

  /** @returns a short way from a state to one that is sought; empty if none is near. */
  way(from: number, isSought: (state: number) => boolean): readonly Edge[] {
    const seen = new Set([from]);
    let front: { readonly at: number; readonly way: readonly Edge[] }[] = [{ at: from, way: [] }];
    for (let length = 1; length <= LONGEST_WAY && seen.size < MOST_LOOKED_AT; length++) {
      const next: typeof front = [];
      for (const { at, way } of front)
        for (const edge of this.#edges.get(at) ?? []) {
          if (seen.has(edge.to)) continue;
          seen.add(edge.to);
          const longer = [...way, edge];
          if (isSought(edge.to)) return longer;
          next.push({ at: edge.to, way: longer });
        }
      front = next;
    }
    return [];
  }
}
