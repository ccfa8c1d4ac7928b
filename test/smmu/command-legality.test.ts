import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE, type IdRegisters } from '../../src/smmu/identification.ts';
import { Device, SYNC, type Command } from '../support/smmu-device.ts';

const ILL = 1;
const CMDQ_ERR = 1;
const STAGE_1 = identify(QEMU_LIKE, { S2P: 0 });
const STAGE_2 = identify(QEMU_LIKE, { S1P: 0, HAD: 0 });
const HYP = identify(QEMU_LIKE, { HYP: 1 });
const ATS = identify(QEMU_LIKE, { ATS: 1 });
const PRI = identify(QEMU_LIKE, { ATS: 1, PRI: 1, PRIQS: 4 });
const STALLS = identify(QEMU_LIKE, { STALL_MODEL: 0, STALL_MAX: 8 });

const EVERYTHING = identify(QEMU_LIKE, {
  HYP: 1,
  ATS: 1,
  PRI: 1,
  PRIQS: 4,
  STALL_MODEL: 0,
  STALL_MAX: 8,
  MSI: 1,
});

/** Opcodes that are legal with each set of features; every other of the 256 must be CERROR_ILL (4.1.1, 7.1). */
const BASE = [0x01, 0x02, 0x03, 0x04, 0x30, 0x46];
const S1 = [0x05, 0x06, 0x10, 0x11, 0x12, 0x13];
const S2 = [0x28, 0x2a];

const LEGAL: readonly (readonly [string, IdRegisters, readonly number[]])[] = [
  ['both stages', QEMU_LIKE, [...BASE, ...S1, ...S2]],
  ['stage 1 only', STAGE_1, [...BASE, ...S1]],
  ['stage 2 only', STAGE_2, [...BASE, ...S2]],
  ['HYP', HYP, [...BASE, ...S1, ...S2, 0x20, 0x21, 0x22, 0x23]],
  ['ATS', ATS, [...BASE, ...S1, ...S2, 0x40]],
  ['PRI', PRI, [...BASE, ...S1, ...S2, 0x40, 0x41]],
  ['stalls', STALLS, [...BASE, ...S1, ...S2, 0x44, 0x45]],
  [
    'stalls forced',
    identify(QEMU_LIKE, { STALL_MODEL: 2, STALL_MAX: 8 }),
    [...BASE, ...S1, ...S2, 0x44, 0x45],
  ],
  ['everything', EVERYTHING, [...BASE, ...S1, ...S2, 0x20, 0x21, 0x22, 0x23, 0x40, 0x41, 0x44, 0x45]],
];

/** Runs one command followed by a CMD_SYNC. @returns the CERROR code, 0 if both were consumed. */
function outcome(ids: IdRegisters, command: Command, cr0 = 0b1101): number {
  const device = new Device(ids).start(cr0);
  device.submit(command, SYNC);
  if ((device.errors & CMDQ_ERR) === 0) {
    expect(device.cons).toBe(2);
    return 0;
  }
  expect(device.cons).toBe(0);
  return device.cerror;
}

describe('legality of commands', () => {
  it.each(LEGAL)('with %s: exactly the opcodes that exist', (_title, ids, legal) => {
    const found: number[] = [];
    for (let opcode = 0; opcode < 256; opcode++) {
      const code = outcome(ids, [opcode, 0, 0, 0]);
      if (code === 0) found.push(opcode);
      else expect(code).toBe(ILL);
    }
    expect(found).toEqual([...legal].sort((a, b) => a - b));
  });

  it.each([0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x44, 0x45])('opcode %d with SSec=1 is illegal', (opcode) => {
    expect(outcome(EVERYTHING, [opcode | (1 << 10), 0, 0, 0])).toBe(ILL);
    expect(outcome(EVERYTHING, [opcode, 0, 0, 0])).toBe(0);
  });

  it.each([0x12, 0x13, 0x22, 0x23, 0x2a])(
    'opcode %d with a reserved range is illegal only with RIL',
    (op) => {
      const ids = identify(QEMU_LIKE, { HYP: 1 });
      const without = identify(QEMU_LIKE, { HYP: 1, RIL: 0 });
      for (const tg of [1, 2, 3]) {
        expect(outcome(ids, [op, 0, tg << 10, 0])).toBe(ILL);
        expect(outcome(without, [op, 0, tg << 10, 0])).toBe(0);
        expect(outcome(ids, [op | (1 << 12), 0, tg << 10, 0])).toBe(0);
        expect(outcome(ids, [op | (1 << 20), 0, tg << 10, 0])).toBe(0);
        expect(outcome(ids, [op | (1 << 25), 0, tg << 10, 0])).toBe(0);
        expect(outcome(ids, [op, 0, (tg << 10) | (2 << 8), 0])).toBe(0);
        // 4.4.1.1: level 1 of 16 KiB needs DS; without it TTL=1 is no hint.
        expect(outcome(ids, [op, 0, (tg << 10) | (1 << 8), 0])).toBe(tg === 2 ? ILL : 0);
      }
      expect(outcome(ids, [op, 0, 0, 0])).toBe(0);
      expect(outcome(ids, [op, 0, 3 << 8, 0])).toBe(0);
    },
  );

  it('takes level 1 of 16 KiB with DS', () => {
    const ids = identify(QEMU_LIKE, { DS: 1, VAX: 1, OAS: 6 });
    expect(outcome(ids, [0x12, 0, (2 << 10) | (1 << 8), 0])).toBe(0);
  });

  it('rejects CMD_SYNC with CS=3 and takes the others', () => {
    for (const cs of [0, 1, 2]) expect(outcome(QEMU_LIKE, [0x46 | (cs << 12), 0, 0, 0])).toBe(0);
    expect(outcome(QEMU_LIKE, [0x46 | (3 << 12), 0, 0, 0])).toBe(ILL);
  });

  it('rejects CMD_PRI_RESP with Resp=3', () => {
    for (const resp of [0, 1, 2]) expect(outcome(PRI, [0x41, 0, resp << 12, 0])).toBe(0);
    expect(outcome(PRI, [0x41, 0, 3 << 12, 0])).toBe(ILL);
  });

  it('rejects CMD_ATC_INV of more than the address space', () => {
    expect(outcome(ATS, [0x40, 0, 52, 0])).toBe(0);
    expect(outcome(ATS, [0x40, 0, 53, 0])).toBe(ILL);
  });

  it('puts ILLEGAL before IGNORED while SMMUEN=0', () => {
    expect(outcome(QEMU_LIKE, [0x40, 0, 0, 0], 0b1100)).toBe(ILL);
    expect(outcome(QEMU_LIKE, [0x41, 0, 0, 0], 0b1100)).toBe(ILL);
    expect(outcome(PRI, [0x41, 0, 3 << 12, 0], 0b1100)).toBe(ILL);
    expect(outcome(ATS, [0x40, 0, 53, 0], 0b1100)).toBe(ILL);
  });

  it('ignores reserved bits', () => {
    expect(outcome(QEMU_LIKE, [0x30 | 0xffff_ff00, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff])).toBe(0);
    expect(outcome(QEMU_LIKE, [0x46 | 0xc000, 0, 0, 0xff00_0000])).toBe(0);
  });
});
