/** Hands out small numbers, lowest free first: VMIDs, ASIDs. */
export class Tags {
  readonly #used = new Set<number>();
  readonly #first: number;

  constructor(first: number) {
    this.#first = first;
  }

  allocate(): number {
    let tag = this.#first;
    while (this.#used.has(tag)) tag += 1;
    this.#used.add(tag);
    return tag;
  }

  free(tag: number): void {
    this.#used.delete(tag);
  }

  get count(): number {
    return this.#used.size;
  }
}
