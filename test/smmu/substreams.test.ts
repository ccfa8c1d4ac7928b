import { describe, expect, it } from 'vitest';
import { NOWHERE, Rig } from '../support/translation-rig.ts';
import { type CdFields, RW_PAGE, type SteFields, buildCd } from '../support/tables.ts';

const C_BAD_SUBSTREAMID = 8;
const F_STREAM_DISABLED = 6;
const F_CD_FETCH = 9;
const IDS = { SSIDSIZE: 12, CD2L: 1 };

interface Stream {
  rig: Rig;
  /** Address of each CD. */
  cdAt: (index: number) => bigint;
  /** Address of the level 1 descriptor of each CD. */
  l1At: (index: number) => bigint;
}

/** A stream of 2^S1CDMax CDs; CD number i maps page 0x1000 to 0x8000_0000 + i pages. */
function substreams(fields: SteFields, count: number): Stream {
  const rig = new Rig(IDS);
  const S1Fmt = Number(fields.S1Fmt ?? 0);
  const split = S1Fmt === 1 ? 6 : S1Fmt === 2 ? 10 : 32;
  const leafSize = split === 32 ? 64n * BigInt(count) : 64n << BigInt(split);
  const leaves = Array.from({ length: split === 32 ? 1 : Math.ceil(count / 2 ** split) }, () =>
    rig.allocator.take(leafSize),
  );
  const l1 = rig.allocator.take(BigInt(Math.max(64, 8 * leaves.length)));
  if (split !== 32) for (const [i, leaf] of leaves.entries()) rig.write(l1 + BigInt(8 * i), leaf | 1n);
  const cdAt = (index: number): bigint =>
    split === 32
      ? leaves[0] + BigInt(64 * index)
      : leaves[index >>> split] + BigInt(64 * (index & (2 ** split - 1)));
  for (const index of [0, 1, 2, 63, 64, 65, 1023, 1024, count - 1]) {
    if (index >= count) continue;
    const table = rig.stage1();
    table.map(0x1000n, 0x8000_0000n + BigInt(index) * 0x1000n, RW_PAGE);
    const cd: CdFields = { T0SZ: 25, IPS: 4, TTB0: table.base, ASID: index };
    rig.write(cdAt(index), ...buildCd(cd));
  }
  rig.ste(1, { Config: 5, S1ContextPtr: split === 32 ? leaves[0] : l1, ...fields });
  return { rig, cdAt, l1At: (index) => l1 + BigInt(8 * (index >>> split)) };
}

describe('SubstreamIDs', () => {
  it.each<[string, SteFields, number | undefined, string, number[]]>([
    ['SSV=1 in bypass', { Config: 4 }, 1, 'abort', [C_BAD_SUBSTREAMID]],
    ['SSV=1 with S1CDMax=0', {}, 1, 'abort', [C_BAD_SUBSTREAMID]],
    ['SSV=1, SSID=0 with S1CDMax=0', {}, 0, 'abort', [C_BAD_SUBSTREAMID]],
    ['SSID beyond S1CDMax', { S1CDMax: 2 }, 4, 'abort', [C_BAD_SUBSTREAMID]],
    ['SSID=0 with S1DSS=2', { S1CDMax: 2, S1DSS: 2 }, 0, 'abort', [F_STREAM_DISABLED]],
    ['SSV=0 with S1DSS=0', { S1CDMax: 2, S1DSS: 0 }, undefined, 'abort', [F_STREAM_DISABLED]],
    ['SSV=0 with S1DSS=3', { S1CDMax: 2, S1DSS: 3 }, undefined, 'abort', [F_STREAM_DISABLED]],
    ['SSV=0 with S1DSS=1', { S1CDMax: 2, S1DSS: 1 }, undefined, 'ok 1000', []],
    ['SSV=0 with S1DSS=2', { S1CDMax: 2, S1DSS: 2 }, undefined, 'ok 80000000', []],
    ['SSV=0 with S1CDMax=0', { S1DSS: 0, S1Fmt: 1 }, undefined, 'abort', [0x0a]],
    ['SSID=0 with S1DSS=0', { S1CDMax: 2, S1DSS: 0 }, 0, 'ok 80000000', []],
    ['SSID=0 with S1DSS=1', { S1CDMax: 2, S1DSS: 1 }, 0, 'ok 80000000', []],
    ['SSID=0 with S1DSS=3', { S1CDMax: 2, S1DSS: 3 }, 0, 'ok 80000000', []],
    ['SSID=1', { S1CDMax: 2 }, 1, 'ok 80001000', []],
    ['SSID=63 of 64, reserved S1Fmt', { S1CDMax: 6, S1Fmt: 3 }, 63, 'ok 8003f000', []],
    ['4 KB leaves, SSID=1', { S1CDMax: 3, S1Fmt: 1 }, 1, 'ok 80001000', []],
    ['4 KB leaves, SSID=65', { S1CDMax: 12, S1Fmt: 1 }, 65, 'ok 80041000', []],
    ['4 KB leaves, the last SSID', { S1CDMax: 12, S1Fmt: 1 }, 4095, 'ok 80fff000', []],
    ['64 KB leaves, SSID=1023', { S1CDMax: 12, S1Fmt: 2 }, 1023, 'ok 803ff000', []],
    ['64 KB leaves, SSID=1024', { S1CDMax: 12, S1Fmt: 2 }, 1024, 'ok 80400000', []],
  ])('%s', (_what, fields, ssid, outcome, events) => {
    const { rig } = substreams(fields, 2 ** Number(fields.S1CDMax ?? 0));
    expect(rig.access(1, 0x1000n, ssid === undefined ? {} : { ssid })).toBe(outcome);
    const seen = rig.events();
    expect(seen.map(({ type }) => type)).toEqual(events);
    for (const event of seen) expect(event.ssid).toBe(ssid);
  });

  it('without SSIDSIZE may not be sent at all', () => {
    const rig = new Rig();
    rig.stage1Stream(1, {}, { S1CDMax: 4 });
    expect(rig.access(1, 0x1000n, { ssid: 0 })).toBe('abort');
    expect(rig.events()).toEqual([{ type: C_BAD_SUBSTREAMID, sid: 1, ssid: 0 }]);
  });

  it('meet an invalid level 1 descriptor as C_BAD_SUBSTREAMID, also through S1DSS=2', () => {
    const { rig, l1At } = substreams({ S1CDMax: 8, S1Fmt: 1, S1DSS: 2 }, 256);
    rig.write(l1At(0), 0n);
    expect(rig.access(1, 0x1000n)).toBe('abort');
    expect(rig.access(1, 0x1000n, { ssid: 7 })).toBe('abort');
    expect(rig.events()).toEqual([
      { type: C_BAD_SUBSTREAMID, sid: 1, ssid: 0 },
      { type: C_BAD_SUBSTREAMID, sid: 1, ssid: 7 },
    ]);
  });

  it('meet a level 1 descriptor that points beyond the OAS as C_BAD_SUBSTREAMID', () => {
    const { rig, l1At } = substreams({ S1CDMax: 8, S1Fmt: 1 }, 256);
    rig.write(l1At(1), (1n << 44n) | 1n);
    expect(rig.access(1, 0x1000n, { ssid: 1 })).toBe('abort');
    expect(rig.events()).toEqual([{ type: C_BAD_SUBSTREAMID, sid: 1, ssid: 1 }]);
  });

  it('report the address of a CD or level 1 descriptor that cannot be read', () => {
    const { rig, l1At } = substreams({ S1CDMax: 8, S1Fmt: 1 }, 256);
    rig.write(l1At(65), NOWHERE | 1n);
    expect(rig.access(1, 0x1000n, { ssid: 66 })).toBe('abort');
    rig.ste(2, { Config: 5, S1ContextPtr: NOWHERE, S1CDMax: 8, S1Fmt: 1 });
    expect(rig.access(2, 0x1000n, { ssid: 66 })).toBe('abort');
    expect(rig.events()).toEqual([
      { type: F_CD_FETCH, sid: 1, ssid: 66, last: NOWHERE + 128n },
      { type: F_CD_FETCH, sid: 2, ssid: 66, last: NOWHERE + 8n },
    ]);
  });

  it('with S1DSS=1 check the address against the IAS, and then stage 2', () => {
    const rig = new Rig(IDS);
    rig.ste(1, { ...rig.stage2Fields(rig.stage2()), Config: 7, S1CDMax: 2, S1DSS: 1 });
    expect(rig.access(1, 0x4000_1000n)).toBe('ok 40001000');
    expect(rig.access(1, 1n << 44n)).toBe('abort');
    expect(rig.access(1, 1n << 40n)).toBe('abort');
    expect(rig.events()).toMatchObject([
      { type: 0x11, s2: false, cls: 2 },
      { type: 0x10, s2: true, cls: 2, last: 1n << 40n },
    ]);
  });

  it.each([
    ['CFGI_CD of another SubstreamID', 5n | (1n << 32n) | (2n << 12n), 'ok 80001000'],
    ['CFGI_CD of another StreamID', 5n | (2n << 32n) | (1n << 12n), 'ok 80001000'],
    ['CFGI_CD', 5n | (1n << 32n) | (1n << 12n), 'abort'],
    ['CFGI_CD_ALL', 6n | (1n << 32n), 'abort'],
    ['CFGI_STE', 3n | (1n << 32n), 'abort'],
    ['CFGI_ALL', 4n, 'abort'],
  ])('keep their CD cached until it must go: %s', (what, command, outcome) => {
    const { rig, cdAt } = substreams({ S1CDMax: 2, S1DSS: 2 }, 4);
    expect(rig.access(1, 0x1000n, { ssid: 1 })).toBe('ok 80001000');
    rig.write(cdAt(1), 0n);
    rig.command(command, what === 'CFGI_ALL' ? 31n : 0n);
    expect(rig.access(1, 0x1000n, { ssid: 1 })).toBe(outcome);
  });

  it('with S1DSS=2 share CD 0 with CFGI_CD of SubstreamID 0', () => {
    const { rig, cdAt } = substreams({ S1CDMax: 2, S1DSS: 2 }, 4);
    rig.access(1, 0x1000n);
    rig.write(cdAt(0), 0n);
    expect(rig.access(1, 0x1000n)).toBe('ok 80000000');
    rig.command(5n | (1n << 32n));
    expect(rig.access(1, 0x1000n)).toBe('abort');
  });
});
