import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fitToHost, requireCompatible } from '../../src/accel/compatibility.ts';
import type { HostInfo } from '../../src/iommufd/host-info.ts';
import { identificationProblems } from '../../src/smmu/identification-rules.ts';
import { identify, type IdFields } from '../../src/smmu/identification.ts';
import { IDR0 } from '../../src/spec/registers.ts';

/** IDR0..5 as Linux 7.3.4 reported them for QEMU's SMMU (its GET_HW_INFO line). */
const QEMU_HOST = [0x0d44_101b, 0x0273_0010, 0, 0x1414, 0, 0x74];

const host = (changes: Partial<Record<0 | 1 | 3 | 5, number>> = {}): HostInfo => ({
  idr: QEMU_HOST.map((value, i) => changes[i as 0] ?? value),
  IIDR: 0,
  AIDR: 1,
  ats: false,
  maxPasidLog2: 0,
  repeatTlbiCfgi: false,
});
/** A stage 1 guest with 44-bit addresses, all granules, RIL. */
const GUEST = {
  IDR0: 0x0d44_101a,
  IDR1: 0x0108_0010,
  IDR2: 0,
  IDR3: 0x1404,
  IDR4: 0,
  IDR5: 0x74,
  IIDR: 0,
  AIDR: 1,
};

const lowered = (guest: Partial<typeof GUEST>, at = host()): string[] =>
  fitToHost({ ...GUEST, ...guest }, at).lowered.map(({ field, from, to }) => `${field} ${from} -> ${to}`);

describe('a guest on a host', () => {
  it('needs no change if the host can do all of it', () => {
    expect(fitToHost(GUEST, host())).toEqual({ ids: GUEST, lowered: [], problems: [] });
    expect(() => requireCompatible(GUEST, host())).not.toThrow();
  });
  it('gap 30: is lowered to the host instead of refused', () => {
    expect(lowered({ IDR5: 0x75 })).toEqual(['IDR5.OAS 5 -> 4']);
    expect(lowered({}, host({ 5: 0x14 }))).toEqual(['IDR5.GRAN16K 1 -> 0', 'IDR5.GRAN64K 1 -> 0']);
    expect(lowered({}, host({ 3: 0x1004 }))).toEqual(['IDR3.RIL 1 -> 0']);
    expect(lowered({ IDR0: GUEST.IDR0 | (1 << 10) })).toEqual(['IDR0.ATS 1 -> 0']);
    expect(lowered({ IDR1: GUEST.IDR1 | (20 << 6) }, host({ 1: 0x0273_0010 | (8 << 6) }))).toEqual([
      'IDR1.SSIDSIZE 20 -> 8',
    ]);
    expect(lowered({}, host({ 0: 0x0d44_101b & ~(1 << 12) }))).toEqual(['IDR0.ASID16 1 -> 0']);
  });
  it('is an SMMU that can exist, whatever the host says of itself', () => {
    const word = fc.integer({ min: 0, max: 0xffff_ffff });
    const guests: readonly IdFields[] = [
      {},
      { ATS: 1, ATSRECERR: 1 },
      { ATS: 1, PRI: 1, PRIQS: 8, SSIDSIZE: 8, CD2L: 1 },
      { STALL_MODEL: 0, STALL_MAX: 16 },
      { OAS: 6, VAX: 1, DS: 1, GRAN16K: 1 },
      { OAS: 6, VAX: 1, GRAN16K: 0, GRAN64K: 1 },
    ];
    fc.assert(
      fc.property(fc.constantFrom(...guests), word, word, word, word, (fields, idr0, idr1, idr3, idr5) => {
        // 6.3.1: no host has this one.
        fc.pre(IDR0.TTENDIAN.of(idr0) !== 1);
        const guest = identify(GUEST, fields);
        // One that Linux can nest with.
        const { ids, problems } = fitToHost(guest, host({ 0: idr0 | 0b1011, 1: idr1, 3: idr3, 5: idr5 }));
        expect(problems.length === 0 ? identificationProblems(ids) : []).toEqual([]);
        expect(fitToHost(ids, host({ 0: idr0 | 0b1011, 1: idr1, 3: idr3, 5: idr5 })).lowered).toEqual([]);
      }),
      { numRuns: 2000 },
    );
  });
  it('loses what is nothing without another', () => {
    const wide = identify(GUEST, { OAS: 6, VAX: 1, GRAN64K: 1 });
    // 52 bits without a granule whose descriptors hold them.
    expect(
      fitToHost(wide, host({ 5: (1 << 10) | 0x10 | 6 })).lowered.map(({ field, to }) => `${field} ${to}`),
    ).toEqual(['IDR5.GRAN16K 0', 'IDR5.GRAN64K 0', 'IDR5.VAX 0', 'IDR5.OAS 5']);
    // 6.3.8: SMMUv3.1 with stage 1 has HAD.
    const older = fitToHost(GUEST, host({ 3: 0x1400 }));
    expect(older.ids.AIDR).toBe(0);
    expect(older.lowered.map(({ field, to }) => `${field} ${to}`)).toEqual([
      'IDR3.HAD 0',
      'AIDR.ArchMinorRev 0',
    ]);
  });
  it('gap 30: needs nothing of the host for what is emulated: stream table levels, StreamIDs, queues', () => {
    const oneLevel = QEMU_HOST[0] & ~(0b11 << 27);
    const small = 0x0000_0005;
    expect(lowered({}, host({ 0: oneLevel, 1: small }))).toEqual([]);
  });
  it('is lowered where a nested stage 1 cannot have it, even if the host has', () => {
    const everything = { 0: 0xffff_ff9b & ~(0b11 << 21), 3: 0xffff_ffff };
    expect(lowered({ IDR0: GUEST.IDR0 | (1 << 6) }, host(everything))).toEqual(['IDR0.HTTU 1 -> 0']);
  });
  it('has stalls where the host SMMU stalls when it is told to, and no more of them', () => {
    const stalls = { IDR0: GUEST.IDR0 & ~(0b11 << 24), IDR5: (GUEST.IDR5 | (64 << 16)) >>> 0 };
    expect(lowered(stalls, host({ 0: QEMU_HOST[0] & ~(0b11 << 24), 5: 0x74 | (16 << 16) }))).toEqual([
      'IDR5.STALL_MAX 64 -> 16',
    ]);
    expect(lowered(stalls, host({ 5: 0x74 | (16 << 16) }))).toEqual([
      'IDR0.STALL_MODEL 0 -> 1',
      'IDR5.STALL_MAX 64 -> 16',
      'IDR5.STALL_MAX 16 -> 0',
    ]);
  });
  it('has no PRI queue without ATS', () => {
    const pri = { IDR0: (GUEST.IDR0 | (1 << 10) | (1 << 16)) >>> 0, IDR1: GUEST.IDR1 | (8 << 11) };
    expect(lowered(pri, host({ 0: QEMU_HOST[0] | (1 << 10) }))).toEqual([]);
    expect(lowered(pri)).toEqual(['IDR0.ATS 1 -> 0', 'IDR0.PRI 1 -> 0', 'IDR1.PRIQS 8 -> 0']);
  });
  it('lowering is done once: the result fits', () => {
    const { ids } = fitToHost(
      { ...GUEST, IDR0: 0xffff_ffff & ~(1 << 31), IDR3: 0xffff_ffff, IDR5: 0xff6 },
      host(),
    );
    expect(fitToHost(ids, host()).lowered).toEqual([]);
  });
  it.each([
    ['no stage 2', host({ 0: QEMU_HOST[0] & ~1 }), 'IDR0.S2P=0'],
    ['only stalls', host({ 0: (QEMU_HOST[0] & ~(0b11 << 24)) | (0b10 << 24) }), 'STALL_MODEL'],
    ['no common granule', host({ 5: 0x04 }), 'no granule'],
    ['only AArch32 tables', host({ 0: (QEMU_HOST[0] & ~(0b11 << 2)) | (0b01 << 2) }), 'format'],
  ])('is refused on a host with %s', (_what, info, text) => {
    expect(fitToHost(GUEST, info).problems.join(' ')).toContain(text);
    expect(() => requireCompatible(GUEST, info)).toThrow(text);
  });
  it('a refusal names every difference and says what to do', () => {
    expect.assertions(4);
    try {
      requireCompatible({ ...GUEST, IDR5: 0x75 }, host({ 3: 0x1004 }));
    } catch (error) {
      expect(error).toMatchObject({ code: 'EOPNOTSUPP', operation: 'plug' });
      expect(String(error)).toContain('IDR5.OAS=5 (48 bits) must be 4 (44 bits)');
      expect(String(error)).toContain('IDR3.RIL=1 must be 0');
      expect((error as { hint: string }).hint).toContain('before the guest starts');
    }
  });
});
