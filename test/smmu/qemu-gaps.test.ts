/** Gaps of QEMU's SMMUv3 model that lie in the device itself: docs/qemu-gaps.md. The accelerator's are in test/accel. */

import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE, type IdField } from '../../src/smmu/identification.ts';
import { COMMANDS_PER_DOORBELL } from '../../src/smmu/register-effects.ts';
import { CMDQ, Device, NSNH_ALL, RAM as RAM32, SYNC, type Command } from '../support/smmu-device.ts';
import { buildSte } from '../support/tables.ts';
import { NOWHERE, RAM, Rig, STRTAB } from '../support/translation-rig.ts';

const C_BAD_STREAMID = 2;
const C_BAD_SUBSTREAMID = 8;
const F_CD_FETCH = 9;
const CERROR_ILL = 1;
const TWO_LEVEL = 1 << 16;
const BYPASS = buildSte({ Config: 4 });
const SUBSTREAMS = { SSIDSIZE: 8, CD2L: 1 } as const;

/** What CMDQ_CONS.ERR says after a command. */
function cerror(command: Command, ids = QEMU_LIKE): number {
  const device = new Device(ids).start();
  device.submit(command, SYNC);
  return device.cerror;
}

it('gap 12: a doorbell never does more than a bounded number of commands before the guest goes on', () => {
  let deferred = 0;
  const device = new Device(QEMU_LIKE, { defer: () => void deferred++ });
  device.write64(0x90, 0, CMDQ | 12);
  for (let slot = 0; slot < 4096; slot++) device.put(slot, slot % 2 === 0 ? NSNH_ALL : SYNC);
  device.write(0x20, 8);
  device.write(0x98, 4095);
  expect(device.cons).toBe(COMMANDS_PER_DOORBELL);
  expect(deferred).toBe(1);
  expect(device.batches.length).toBeLessThanOrEqual(COMMANDS_PER_DOORBELL / 2);
  while (device.smmu.run());
  expect(device.cons).toBe(4095);
});

it.each([1, 2, 3])(
  'gap 14: TG=%i with NUM=SCALE=TTL=0 is CERROR_ILL, by the architecture and on hardware (decision 4)',
  (tg) => {
    expect(cerror([0x12, 0, tg << 10, 0])).toBe(CERROR_ILL);
    expect(cerror([0x12, 0, tg << 10, 0], identify(QEMU_LIKE, { RIL: 0 }))).toBe(0);
  },
);

it('gap 27: a stream table that was two-level and is linear now is read as a linear one', () => {
  const rig = new Rig();
  const l2 = RAM + 0x8000n;
  rig.write(l2, ...BYPASS);
  rig.write(STRTAB, l2 | 1n);
  rig.strtab(STRTAB, TWO_LEVEL | (6 << 6) | 10);
  expect(rig.access(0, 0x5000n)).toBe('ok 5000');
  rig.strtab(STRTAB, 8);
  rig.write(STRTAB + 64n, ...BYPASS);
  expect(rig.access(1, 0x5000n)).toBe('ok 5000');
});

describe('gap 31: a level 2 span', () => {
  /** Bypass STEs behind one level 1 descriptor. */
  function spanning(span: number, split: number): Rig {
    const rig = new Rig();
    rig.strtab(STRTAB, TWO_LEVEL | (split << 6) | 10);
    rig.write(STRTAB, (RAM + 0x8000n) | BigInt(span));
    for (let i = 0; i < 64; i++) rig.write(RAM + 0x8000n + BigInt(64 * i), ...BYPASS);
    return rig;
  }
  it('gap 31: a level 2 span of N holds 2^(N-1) entries, and beyond it is C_BAD_STREAMID', () => {
    for (const span of [1, 2, 3, 6]) {
      const rig = spanning(span, 8);
      const last = 2 ** (span - 1) - 1;
      expect(rig.access(last, 0x5000n)).toBe('ok 5000');
      expect(rig.access(last + 1, 0x5000n)).toBe('abort');
      expect(rig.events()).toEqual([{ type: C_BAD_STREAMID, sid: last + 1 }]);
    }
  });
  it.each([0, 1, 5, 7, 9, 31])('gap 31: SPLIT=%i, which is none, acts as 6', (split) => {
    const rig = spanning(7, split);
    expect(rig.access(63, 0x5000n)).toBe('ok 5000');
    expect(rig.access(64, 0x5000n)).toBe('abort');
  });
});

it('gap 32: a stream table is aligned to all of its size, linear and two-level', () => {
  const linear = new Rig();
  // 2^4 STEs are 1 KiB: address bits 9 and below do not count.
  linear.strtab(RAM + 0x2200n, 4);
  linear.write(RAM + 0x2000n, ...BYPASS);
  expect(linear.access(0, 0x5000n)).toBe('ok 5000');
  const twoLevel = new Rig();
  // 2^(10-6) level 1 descriptors are 128 bytes: address bits 6 and below do not count.
  twoLevel.strtab(RAM + 0x2040n, TWO_LEVEL | (6 << 6) | 10);
  twoLevel.write(RAM + 0x2000n, (RAM + 0x8000n) | 1n);
  twoLevel.write(RAM + 0x8000n, ...BYPASS);
  expect(twoLevel.access(0, 0x5000n)).toBe('ok 5000');
});

describe('gap 33', () => {
  it('gap 33: F_CD_FETCH has its address in the last 64 bits', () => {
    const rig = new Rig();
    rig.ste(1, { Config: 5, S1ContextPtr: NOWHERE });
    expect(rig.access(1, 0x1000n)).toBe('abort');
    expect(rig.records[0][2]).toBe(0n);
    expect(rig.events()).toEqual([{ type: F_CD_FETCH, sid: 1, last: NOWHERE }]);
  });
  it('gap 33: C_BAD_SUBSTREAMID names the SubstreamID', () => {
    const rig = new Rig(SUBSTREAMS);
    rig.stage1Stream(1, {}, { S1CDMax: 2 });
    expect(rig.access(1, 0x1000n, { ssid: 9 })).toBe('abort');
    expect(rig.events()).toEqual([{ type: C_BAD_SUBSTREAMID, sid: 1, ssid: 9 }]);
  });
  it('gap 33: a SubstreamID has a CD of its own', () => {
    const rig = new Rig(SUBSTREAMS);
    const { table } = rig.stage1Stream(1);
    const cds = rig.allocator.take(256n);
    rig.write(cds + 128n, rig.read(rig.cd({ T0SZ: 25, IPS: 4, TTB0: table.base, ASID: 2 })));
    const cd = rig.cd({ T0SZ: 25, IPS: 4, TTB0: table.base, ASID: 2 });
    for (let i = 0n; i < 64n; i += 8n) rig.write(cds + 128n + i, rig.read(cd + i));
    rig.ste(1, { Config: 5, S1ContextPtr: cds, S1CDMax: 2 });
    expect(rig.access(1, 0x1000n, { ssid: 2 })).toBe('ok 80001000');
    expect(rig.access(1, 0x1000n, { ssid: 3 })).toBe('abort');
  });
});

describe('gap 34', () => {
  it.each([
    ['STRTAB_BASE', 0x80, 1, 0x40],
    ['STRTAB_BASE_CFG', 0x88, 1, 2],
    ['CMDQ_BASE', 0x90, 8, 2],
    ['CMDQ_CONS', 0x9c, 8, 2],
    ['EVENTQ_BASE', 0xa0, 4, 2],
    ['EVENTQ_PROD', 0x1_00a8, 4, 2],
    ['CR2', 0x2c, 1, 2],
  ])('gap 34: %s cannot be written while it is in use', (_name, offset, cr0, value) => {
    const device = new Device().start(cr0);
    const before = device.read(offset);
    device.write(offset, value);
    expect(device.read(offset)).toBe(before);
    device.write(0x20, 0);
    device.write(offset, value);
    expect(device.read(offset)).toBe(value);
  });
  it('gap 34: IRQ_CTRLACK is a register of its own, and cannot be written', () => {
    const device = new Device();
    device.write(0x50, 5);
    expect(device.read(0x54)).toBe(5);
    device.write(0x54, 0);
    expect(device.read(0x54)).toBe(5);
  });
  it('gap 34: an acknowledged CMDQ_ERR is over, whatever ERR, which means nothing then, still says', () => {
    const device = new Device().start();
    device.submit([0xff, 0, 0, 0]);
    expect(device.cerror).toBe(CERROR_ILL);
    device.put(0, SYNC);
    device.write(0x64, 1);
    expect([device.cons, device.errors]).toEqual([1, 0]);
  });
  it.each<[string, Command]>([
    ['an opcode that does not exist', [0xff, 0, 0, 0]],
    ['CMD_TLBI_EL2_ALL without HYP', [0x20, 0, 0, 0]],
    ['CMD_PRI_RESP without PRI', [0x41, 0, 0, 0]],
    ['CMD_RESUME without stalls', [0x44, 0, 0, 0]],
    ['CMD_SYNC with CS=3', [0x46 | (3 << 12), 0, 0, 0]],
    ['CMD_CFGI_STE with SSec=1', [0x03 | (1 << 10), 0, 1, 0]],
  ])('gap 34: %s is CERROR_ILL', (_what, command) => {
    expect(cerror(command)).toBe(CERROR_ILL);
  });
  it('gap 34: the answer of CMD_PRI_RESP is in bits 13:12', () => {
    const answers: number[] = [];
    const device = new Device(identify(QEMU_LIKE, { ATS: 1, PRI: 1 }), {
      responses: { respond: (_sid, _ssv, _ssid, _group, response) => void answers.push(response) },
    }).start(0b1001);
    for (const response of [0, 1, 2]) device.submit([0x41, 0, response << 12, 0]);
    expect(answers).toEqual([0, 1, 2]);
  });
});

describe('gap 35', () => {
  it.each<IdField>(['ATOS', 'VATOS', 'DPT', 'MPAM', 'ECMDQ'])(
    'gap 35: %s is not there, and cannot be offered',
    (field) => {
      expect(() => identify(QEMU_LIKE, { [field]: 1 })).toThrow('must be 0');
    },
  );
  it('gap 35: MSIs of the SMMU itself are there if IDR0.MSI says so', () => {
    const device = new Device(identify(QEMU_LIKE, { MSI: 1 })).start();
    device.submit([0x46 | (1 << 12), 0x1234, RAM32 + 4, 0]);
    expect(device.interrupts).toContain(`msi 0:${(RAM32 + 4).toString(16)} 1234`);
  });
  it('gap 35: stage 1 has two-level CD tables if IDR0.CD2L says so', () => {
    const rig = new Rig(SUBSTREAMS);
    const { table } = rig.stage1Stream(1);
    const leaf = rig.allocator.take(4096n);
    const cd = rig.cd({ T0SZ: 25, IPS: 4, TTB0: table.base, ASID: 2 });
    for (let i = 0n; i < 64n; i += 8n) rig.write(leaf + 64n * 5n + i, rig.read(cd + i));
    const l1 = rig.allocator.take(64n);
    rig.write(l1, leaf | 1n);
    rig.ste(1, { Config: 5, S1ContextPtr: l1, S1CDMax: 8, S1Fmt: 1 });
    expect(rig.access(1, 0x1000n, { ssid: 5 })).toBe('ok 80001000');
  });
  it('gap 35: faults stall if STALL_MODEL says so, and wait for CMD_RESUME', () => {
    const rig = new Rig({ STALL_MODEL: 0, STALL_MAX: 8 });
    rig.stage1Stream(1, { S: 1 });
    rig.translator.stallPort = { resolved() {} };
    expect(rig.access(1, 0x9000n, { mayStall: true })).toBe('stalled');
    expect(rig.events()).toMatchObject([{ type: 0x10, sid: 1, stall: 0 }]);
  });
});
