import { describe, expect, it } from 'vitest';
import { L1_DESCRIPTOR_SIZE, L1CD, L1STD } from '../../src/spec/stream-table.ts';
import { expectPlace } from './place.ts';

describe('first-level descriptors', () => {
  it.each([
    // STRTAB_L1_DESC_SPAN and _L2PTR_MASK (the driver stops at bit 51).
    [L1STD, 'Span', 4, 0],
    [L1STD, 'L2Ptr', 55, 6],
    // CTXDESC_L1_DESC_V and _L2PTR_MASK (the driver stops at bit 51).
    [L1CD, 'V', 0, 0],
    [L1CD, 'L2Ptr', 55, 12],
  ] as const)('%o: %s sits where the Linux driver puts it', (layout, name, hi, lo) => {
    expectPlace(layout, 2, [name, 0, hi, lo]);
  });

  it('are 8 bytes', () => expect(L1_DESCRIPTOR_SIZE).toBe(8));

  it('is what Linux writes for a bus: 256 STEs below', () => {
    const words = Uint32Array.of(0x4158_4009, 0);
    expect(L1STD.Span.get(words)).toBe(9);
    expect(L1STD.L2Ptr.getLo(words)).toBe(0x4158_4000);
  });
});
