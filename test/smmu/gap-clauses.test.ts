/** Clauses of gaps 33 to 35 that test/smmu/qemu-gaps.test.ts does not name; the features' own tests go further. */

import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { PAGE_REQUEST, PageRequest } from '../../src/smmu/page-request.ts';
import { INVALIDATE } from '../../src/smmu/ports.ts';
import { Device, RAM as RAM32, SYNC } from '../support/smmu-device.ts';
import { LEAF, RW_PAGE } from '../support/tables.ts';
import { Rig } from '../support/translation-rig.ts';

const SMMUEN = 1;
const PRIQEN = 2;
const EVENTQEN = 4;
const CMDQEN = 8;
/** CR1: attributes of tables in bits 11:6, of queues in bits 5:0. */
const CR1 = 0x28;
const TABLES = 0xd40;
const QUEUES = 0x35;

describe('gap 13', () => {
  it('gap 13: an endpoint that did not answer the last guest is no error of the next one', () => {
    const device = new Device(identify(QEMU_LIKE, { ATS: 1 })).start(0b1101);
    device.invalidateStatus = INVALIDATE.AtcInvTimeout;
    // The CFGI_STE hands the ATC_INV over before its CMD_SYNC, which never comes.
    device.submit([0x40, 1, 52, 0], [0x03, 2, 1, 0]);
    device.invalidateStatus = INVALIDATE.Complete;
    device.smmu.reset();
    device.start(0b1101);
    device.submit(SYNC);
    expect([device.cerror, device.errors]).toEqual([0, 0]);
  });
});

describe('gap 34', () => {
  it.each([
    ['tables', SMMUEN, TABLES, QUEUES],
    ['queues, of commands', CMDQEN, QUEUES, TABLES],
    ['queues, of events', EVENTQEN, QUEUES, TABLES],
  ])(
    'gap 34: CR1 of %s cannot be written while they are in use, and the rest can',
    (_what, cr0, held, free) => {
      const device = new Device();
      device.write(0x20, cr0);
      device.write(CR1, held | free);
      expect(device.read(CR1)).toBe(free);
      device.write(0x20, 0);
      device.write(CR1, held);
      expect(device.read(CR1)).toBe(held);
    },
  );
  it.each([
    ['PRIQ_BASE', 0xc0, PRIQEN],
    ['CMDQ_BASE', 0x90, CMDQEN],
    ['EVENTQ_BASE', 0xa0, EVENTQEN],
  ])('gap 34: %s keeps its value from the moment that its queue is on', (_name, offset, cr0) => {
    const device = new Device(identify(QEMU_LIKE, { ATS: 1, PRI: 1, PRIQS: 4 }));
    device.write(offset, 2);
    device.write(0x20, cr0 | SMMUEN);
    device.write(offset, 4);
    expect(device.read(offset)).toBe(2);
  });
  it('gap 34: GBPA is written only with Update', () => {
    const device = new Device();
    const before = device.read(0x44);
    device.write(0x44, 1 << 20);
    expect(device.read(0x44)).toBe(before);
    device.write(0x44, 0x8010_0000);
    expect((device.read(0x44) >>> 20) & 1).toBe(1);
  });
});

describe('gap 35', () => {
  it('gap 35: page requests have a queue if PRI says so', () => {
    const device = new Device(identify(QEMU_LIKE, { ATS: 1, PRI: 1, PRIQS: 4 }));
    device.write64(0xc0, 0, RAM32 | 0x4000 | 4);
    device.write(0x20, SMMUEN | PRIQEN | EVENTQEN | CMDQEN);
    const request = Object.assign(new PageRequest(), { sid: 9, prgIndex: 5, read: true, last: true });
    expect(device.smmu.pageRequest(request)).toBe(PAGE_REQUEST.Queued);
    expect(device.read(0x1_00c8)).toBe(1);
    expect(device.ram[0x4000 / 4]).toBe(9);
  });
  it('gap 35: the access flag and the dirty state are kept in the tables if HTTU says so', () => {
    for (const HTTU of [0, 2]) {
      const rig = new Rig({ HTTU });
      const { table } = rig.stage1Stream(1, HTTU === 0 ? {} : { HA: 1, HD: 1 });
      const clean = (RW_PAGE & ~LEAF.AF) | LEAF.AP2 | LEAF.DBM;
      const at = table.map(0x1000n, 0x8000_1000n, clean);
      const outcome = rig.access(1, 0x1000n, { write: true });
      expect(outcome.split(' ')[0]).toBe(HTTU === 0 ? 'abort' : 'ok');
      expect((rig.read(at) & LEAF.AF) !== 0n).toBe(HTTU === 2);
      expect((rig.read(at) & LEAF.AP2) === 0n).toBe(HTTU === 2);
    }
  });
  it('gap 35: there is no Secure state, and its registers are RAZ/WI', () => {
    const device = new Device();
    for (const offset of [0x8000, 0x8004, 0x8020, 0x8080]) {
      device.write(offset, 0xffff_ffff);
      expect(device.read(offset)).toBe(0);
    }
  });
});
