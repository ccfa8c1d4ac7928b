/**
 * The context descriptor of a stream as it was in guest memory just before the host dropped what it had cached of it. As
 * long as memory says the same, the host can have cached nothing else: a CFGI_STE for an STE that is the same, which
 * drops the CDs too (4.3.1), then needs no call (docs/decisions/0043-cfgi-ste-and-cds.md).
 */

import { joinNumber } from '../bits/u64.ts';
import { CD_SIZE } from '../spec/cd.ts';
import { STE } from '../spec/ste.ts';
import type { AddressSpace } from './address-space.ts';
import type { Target } from './desired.ts';

export class SeenCd {
  readonly #bytes = new Uint8Array(CD_SIZE);
  #known = false;

  /** Takes it down; to be called before the host drops it, so that what is cached afterwards is this or newer. */
  look(space: AddressSpace, target: Target): void {
    const cd = cdOf(space, target);
    this.#known = cd !== undefined;
    if (cd !== undefined) this.#bytes.set(cd);
  }

  /** Whether memory says the same as at the last {@link look}; false also where nobody can tell. */
  isSame(space: AddressSpace, target: Target): boolean {
    const cd = this.#known ? cdOf(space, target) : undefined;
    return cd !== undefined && this.#bytes.every((byte, i) => byte === cd[i]);
  }
}

/** The only CD that a stream has, in guest RAM; undefined if it has several, or it is not in one piece of RAM. */
function cdOf(space: AddressSpace, { kind, ste }: Target): Uint8Array | undefined {
  if (kind !== 'translate') return undefined;
  if (STE.S1CDMax.of(ste[STE.S1CDMax.word]) !== 0) return undefined;
  const { loMask, hiMask, word } = STE.S1ContextPtr;
  return space.ram(joinNumber(ste[word + 1] & hiMask, ste[word] & loMask), CD_SIZE);
}
