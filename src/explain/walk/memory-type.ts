/** Memory types of the two stages, and of both together (IHI 0070 13.1.5). */

/** Device: how much it lets pass, 0 is nGnRnE. Normal: cacheability, 0 none, 1 write-through, 2 write-back. */
export type MemoryType =
  | { readonly device: number }
  | { readonly outer: number; readonly inner: number }
  /** Stage 2 with FWB that leaves it to stage 1. */
  | 'as stage 1';

const DEVICE = ['Device-nGnRnE', 'Device-nGnRE', 'Device-nGRE', 'Device-GRE'] as const;
const CACHE = ['non-cacheable', 'write-through', 'write-back'] as const;

/** Cacheability in a nibble of MAIR that is not 0. */
function cacheability(nibble: number): number {
  if (nibble === 0b0100) return 0;
  return (nibble & 0b0100) === 0 ? 1 : 2;
}

/** Of the attribute byte of CD.MAIR that stage 1's AttrIndx chooses. */
export function stage1Type(mair: number): MemoryType {
  if (mair >>> 4 === 0) return { device: (mair >>> 2) & 3 };
  return { outer: cacheability(mair >>> 4), inner: cacheability(mair & 15) };
}

/** Of a stage 2 leaf's MemAttr. */
export function stage2Type(MemAttr: number, FWB: boolean): MemoryType {
  if (FWB) {
    const low = MemAttr & 7;
    if (low < 4) return { device: low };
    if (low === 5) return { outer: 0, inner: 0 };
    return low === 6 ? { outer: 2, inner: 2 } : 'as stage 1';
  }
  if (MemAttr >>> 2 === 0) return { device: MemAttr & 3 };
  return { outer: (MemAttr >>> 2) - 1, inner: Math.max((MemAttr & 3) - 1, 0) };
}

/** Both stages: a device beats memory, and the less cacheable one wins; with FWB stage 2 decides. */
export function bothTypes(s1: MemoryType, s2: MemoryType, FWB: boolean): MemoryType {
  if (s2 === 'as stage 1') return s1;
  if (s1 === 'as stage 1') return s2;
  // 13.1.5: with FWB only "forced" types differ from stage 1; a device at stage 1 stays one unless write-back is forced.
  if (FWB && !('device' in s2)) return 'device' in s1 && s2.outer === 0 ? s1 : s2;
  if ('device' in s1) return 'device' in s2 ? { device: Math.min(s1.device, s2.device) } : s1;
  if ('device' in s2) return s2;
  return { outer: Math.min(s1.outer, s2.outer), inner: Math.min(s1.inner, s2.inner) };
}

export function describeType(type: MemoryType): string {
  if (type === 'as stage 1') return 'the memory type of stage 1';
  if ('device' in type) return DEVICE[type.device];
  if (type.outer === type.inner) return `Normal ${CACHE[type.outer]}`;
  return `Normal outer ${CACHE[type.outer]}, inner ${CACHE[type.inner]}`;
}
