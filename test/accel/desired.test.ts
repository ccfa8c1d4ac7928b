import { describe, expect, it } from 'vitest';
import { desired, STE_KERNEL_MASK, type GuestState, type SteLimits } from '../../src/accel/desired.ts';

const COLD: GuestState = {
  smmuEnabled: false,
  gbpaAbort: false,
  eventqEnabled: false,
  eventqLog2Size: 7,
  recordsBadStreamId: true,
  eventqBaseHi: 0,
  eventqBaseLo: 0x4000_0000,
  priqEnabled: false,
  priqBaseHi: 0,
  priqBaseLo: 0,
};
const LIMITS: SteLimits = {
  ats: false,
  ssidSize: 0,
  stallDisable: 0,
  offered: new Set(),
  tripwire: undefined,
};
const NIC = { name: 'nic', sid: 8 };

/** A lookup that finds these first words for every StreamID. */
const holds =
  (...words: number[]) =>
  (_sid: number, into: Uint32Array): number => {
    into.fill(0);
    into.set(words);
    return 0;
  };
const notCalled = (): number => {
  throw new Error('the stream table was read');
};
const on = (changes: Partial<GuestState>): GuestState => ({ ...COLD, ...changes });

const V = 1;
const S1 = 0b101 << 1;

describe('which streams translate', () => {
  it.each([
    { registers: { smmuEnabled: false, gbpaAbort: false }, kind: 'bypass' },
    { registers: { smmuEnabled: false, gbpaAbort: true }, kind: 'abort' },
  ])('SMMUEN=0 lets GBPA alone decide, and reads no stream table: $kind', ({ registers, kind }) => {
    const { streams } = desired(on(registers), [NIC], notCalled, LIMITS);
    expect(streams).toMatchObject([{ name: 'nic', vsid: 8, target: { kind }, event: 0 }]);
  });

  it.each([
    { config: 0b000, kind: 'abort', event: 0 },
    { config: 0b001, kind: 'abort', event: 0 },
    { config: 0b010, kind: 'abort', event: 0 },
    { config: 0b011, kind: 'abort', event: 0 },
    { config: 0b100, kind: 'bypass', event: 0 },
    { config: 0b101, kind: 'translate', event: 0 },
    { config: 0b110, kind: 'abort', event: 4 },
    { config: 0b111, kind: 'abort', event: 4 },
  ])('STE.Config=$config means $kind', ({ config, kind, event }) => {
    for (const gbpaAbort of [false, true]) {
      const state = on({ smmuEnabled: true, gbpaAbort });
      const { streams } = desired(state, [NIC], holds(V | (config << 1)), LIMITS);
      expect(streams).toMatchObject([{ target: { kind }, event }]);
    }
  });

  it.each([2, 3, 4])(
    'an STE that cannot be used (event %i) aborts, and says which event that would be',
    (event) => {
      const { streams } = desired(on({ smmuEnabled: true }), [NIC], () => event, LIMITS);
      expect(streams).toMatchObject([{ target: { kind: 'abort' }, event }]);
    },
  );

  it('a device without a StreamID aborts, and nobody reads a stream table for it', () => {
    const { streams } = desired(
      on({ smmuEnabled: true }),
      [{ name: 'nic', sid: undefined }],
      notCalled,
      LIMITS,
    );
    expect(streams).toMatchObject([{ vsid: undefined, target: { kind: 'abort' } }]);
  });

  it('of two devices with one StreamID the second has none', () => {
    const { streams } = desired(
      on({ smmuEnabled: true }),
      [NIC, { name: 'disk', sid: 8 }],
      holds(V | S1),
      LIMITS,
    );
    expect(streams).toMatchObject([
      { vsid: 8, target: { kind: 'translate' } },
      { vsid: undefined, target: { kind: 'abort' } },
    ]);
  });
});

describe('what the kernel is given of an STE', () => {
  const ste = (words: number[], limits: Partial<SteLimits> = {}): string[] =>
    desired(on({ smmuEnabled: true }), [NIC], holds(...words), {
      ...LIMITS,
      ...limits,
    }).streams[0].target.ste.map((word) => (word >>> 0).toString(16));

  it('masks with the bits that Linux takes: 0xf80f_ffff_ffff_ffff and 0x3800_00ff', () => {
    expect(STE_KERNEL_MASK).toEqual([0xffff_ffff, 0xf80f_ffff, 0x3800_00ff, 0]);
    expect(ste([V | S1, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff], { ssidSize: 20 })).toEqual([
      'b',
      'f80fffff',
      'ff',
      '0',
    ]);
  });
  it('a bypass and an abort carry nothing of the guest but V and Config', () => {
    const noise = [0xffff_fff0, 0xffff_ffff, 0xffff_ffff];
    const words = (config: number): readonly number[] =>
      desired(on({ smmuEnabled: true }), [NIC], holds(V | (config << 1) | 0xf0, ...noise), LIMITS).streams[0]
        .target.ste;
    expect(words(0b100)).toEqual([0b1001, 0, 0, 0]);
    expect(words(0b000)).toEqual([0b0001, 0, 0, 0]);
  });
  it('S1CDMax goes only with substreams', () => {
    expect(ste([V | S1, 5 << 27])[1]).toBe('0');
    expect(ste([V | S1, 5 << 27], { ssidSize: 8 })[1]).toBe(((5 << 27) >>> 0).toString(16));
  });
  it.each([
    { eats: 0, ats: true, want: 0 },
    { eats: 1, ats: true, want: 1 },
    { eats: 1, ats: false, want: 0 },
    { eats: 2, ats: true, want: 0 },
    { eats: 3, ats: true, want: 0 },
  ])('EATS=$eats with ATS $ats becomes $want', ({ eats, ats, want }) => {
    expect(ste([V | S1, 0, eats << 28], { ats })[2]).toBe((want << 28).toString(16));
  });
  it('S1STALLD is set exactly where the hardware stalls unasked', () => {
    expect(ste([V | S1, 0, 0], { stallDisable: 1 })[2]).toBe('8000000');
    expect(ste([V | S1, 0, 1 << 27])[2]).toBe('0');
  });
  it('two STEs that differ only where the kernel does not look are one target', () => {
    const key = (word1: number): string =>
      desired(on({ smmuEnabled: true }), [NIC], holds(V | S1, 0, 0x54, word1), LIMITS).streams[0].target.key;
    // SHCFG, which Linux sets with S1DSS=bypass.
    expect(key(1 << 12)).toBe(key(0));
  });
});

describe('the vEVENTQ', () => {
  it.each([
    { eventqEnabled: false, devices: 0, wanted: false },
    { eventqEnabled: true, devices: 0, wanted: false },
    { eventqEnabled: false, devices: 1, wanted: false },
    { eventqEnabled: true, devices: 1, wanted: true },
    { eventqEnabled: true, devices: 2, wanted: true },
  ])('EVENTQEN $eventqEnabled and $devices devices: $wanted', ({ eventqEnabled, devices, wanted }) => {
    const plugged = [NIC, { name: 'disk', sid: 9 }].slice(0, devices);
    for (const smmuEnabled of [false, true]) {
      const { viommu, veventq } = desired(on({ eventqEnabled, smmuEnabled }), plugged, holds(V), LIMITS);
      expect(viommu).toBe(devices > 0);
      expect(veventq !== undefined).toBe(wanted);
    }
  });
  it.each([
    [0, 1],
    [1, 2],
    [7, 128],
    [19, 524_288],
    [20, 524_288],
    [31, 524_288],
  ])('a guest queue of 2^%i records has depth %i', (eventqLog2Size, depth) => {
    const { veventq } = desired(on({ eventqEnabled: true, eventqLog2Size }), [NIC], holds(V), LIMITS);
    expect(veventq).toMatchObject({ depth, log2Size: eventqLog2Size });
  });
  it('is another one for another base', () => {
    const at = (eventqBaseHi: number, eventqBaseLo: number) =>
      desired(on({ eventqEnabled: true, eventqBaseHi, eventqBaseLo }), [NIC], holds(V), LIMITS).veventq;
    expect(at(0, 0x1000)).not.toEqual(at(0, 0x2000));
    expect(at(0, 0x1000)).not.toEqual(at(1, 0x1000));
    expect(at(0, 0x1000)).toEqual(at(0, 0x1000));
  });
});
