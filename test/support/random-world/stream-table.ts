/** The stream table of a random world. */

import type { Random } from '../random.ts';
import { hiOf, loOf } from '../tables.ts';
import { NOWHERE, type RandomMemory } from './random-memory.ts';

/**
 * A stream table of up to 256 StreamIDs, and the registers that lead to it.
 * @returns where the STE of a StreamID is, if there is one
 */
export function makeStreamTable(
  random: Random,
  memory: RandomMemory,
  registers: Uint32Array,
): (sid: bigint) => bigint | undefined {
  const twoLevel = random.chance(0.3);
  const log2 = twoLevel ? 8 : 4;
  const base = memory.takeLow(twoLevel ? 64n : 64n << 4n);
  registers[0x80 >>> 2] = loOf(base);
  registers[0x84 >>> 2] = hiOf(base);
  if (!twoLevel) {
    registers[0x88 >>> 2] = log2;
    return (sid) => base + 64n * sid;
  }
  // 6.3.25: a SPLIT that is reserved acts as 6.
  registers[0x88 >>> 2] = log2 | (random.pick([6, 6, 7]) << 6) | (1 << 16);
  const arrays = Array.from({ length: 4 }, (_, i) => {
    const span = random.pick([7, 7, 4, 1, 0, 8, 13]);
    const stes = span > 7 ? 0 : (1 << span) >> 1;
    const at = memory.take(64n * 64n);
    memory.setDword(base + 8n * BigInt(i), (random.chance(0.95) ? at : NOWHERE) | BigInt(span));
    return { at, stes };
  });
  return (sid) => {
    const { at, stes } = arrays[Number(sid >> 6n)];
    return Number(sid & 63n) < stes ? at + 64n * (sid & 63n) : undefined;
  };
}
