import { describe, expect, it } from 'vitest';
import { explainWalk } from '../../../src/explain/walk/explain-walk.ts';
import { ImageError, machineOfImage } from '../../../src/explain/walk/machine-image.ts';
import { Transaction } from '../../../src/smmu/transaction.ts';
import { buildCd, buildSte, RW_PAGE } from '../../support/tables.ts';

/** 64-bit words as the bytes of memory. */
function bytes(...dwords: bigint[]): string {
  return Buffer.from(new BigUint64Array(dwords).buffer).toString('hex');
}

const REGISTERS = {
  CR0: '0x1',
  STRTAB_BASE: '0x4000_0000',
  STRTAB_BASE_CFG: 8,
};
/** StreamID 1 with stage 1 whose table has one block of 1 GiB, from 0 to 0x8000_0000. */
const MEMORY = [
  ['0x40000040', bytes(...buildSte({ Config: 5, S1ContextPtr: 0x1_4000_1000n }))],
  ['0x140001000', bytes(...buildCd({ T0SZ: 25, IPS: 2, TTB0: 0x4000_2000n }))],
  ['0x40002000', bytes(0x8000_0000n | RW_PAGE | 1n)],
];
const IMAGE = { registers: REGISTERS, memory: MEMORY };

const walk = (image: object, addrLo = 0x1234, sid = 1) =>
  explainWalk(machineOfImage(image), Object.assign(new Transaction(), { sid, addrLo }));

describe('a machine image is refused', () => {
  it.each<[string, unknown, RegExp]>([
    ['nothing', null, /JSON object/],
    ['no registers', { memory: [] }, /"registers" and "memory"/],
    ['an unknown part', { ...IMAGE, mem: [] }, /no "mem" in an image/],
    ['an unknown register', { registers: { CRO: 1 } }, /no register "CRO"/],
    ['a register of the wrong size', { registers: { CR0: '0x1_0000_0000' } }, /CR0 .* below 2\^32/],
    ['a negative value', { registers: { CR0: -1 } }, /CR0 is -1/],
    ['registers in a list', { registers: [1] }, /"registers" is an object/],
    ['memory that is no list of pairs', { registers: {}, memory: [['0x0']] }, /"memory" is a list of pairs/],
    ['half a byte', { registers: {}, memory: [['0x1000', 'abc']] }, /0x1000 are not pairs/],
    ['bytes that are none', { registers: {}, memory: [['0x1000', 'zz']] }, /0x1000 are not pairs/],
    ['an address of 53 bits', { registers: {}, memory: [['0x10000000000000', '00']] }, /below 2\^52/],
    ['a crooked piece of RAM', { registers: {}, ram: [['0x1000', '0x10000']] }, /64 KiB, unlike 0x1000/],
    [
      'bytes outside its RAM',
      { registers: {}, ram: [[0, 65536]], memory: [['0x10000', '00']] },
      /0x10000 are outside/,
    ],
  ])('with %s', (_what, image, message) => {
    expect(() => machineOfImage(image)).toThrow(ImageError);
    expect(() => machineOfImage(image)).toThrow(message);
  });

  it('with everything that is wrong at once', () => {
    try {
      machineOfImage({ registers: { CR0: 'x', NONE: 0 }, memory: 5 });
      expect.unreachable();
    } catch (error) {
      expect((error as ImageError).problems).toHaveLength(3);
    }
  });
});

describe('a machine image', () => {
  it('is walked as a machine would be', () => {
    expect(walk(IMAGE)).toMatchObject({ outcome: 'ok', pa: '0x80001234' });
  });

  it('has no memory but what it names', () => {
    const found = walk(IMAGE, 0x1234, 2);
    expect(found.event).toBe('F_STE_FETCH');
    const cut = MEMORY.map(([at, hex]) => [at, hex.slice(0, 64)]);
    expect(walk({ ...IMAGE, memory: cut }).event).toBe('F_STE_FETCH');
  });

  it('has zeros where "ram" says that there is more', () => {
    const ram = [
      ['0x40000000', '0x10000'],
      ['0x140000000', '0x10000'],
    ];
    expect(walk({ ...IMAGE, ram }, 0x1234, 2).cause).toMatchObject({ field: 'STE.V' });
    expect(walk({ ...IMAGE, ram })).toMatchObject({ outcome: 'ok' });
  });

  it('may hold its memory in pieces that touch', () => {
    const memory = MEMORY.flatMap(([at, hex]) => {
      const first = Number(at);
      const half = hex.length / 2;
      return [
        [first + half / 2, hex.slice(half)],
        [first, hex.slice(0, half)],
      ];
    });
    expect(walk({ ...IMAGE, memory })).toMatchObject({ outcome: 'ok' });
  });

  it('has the ID registers that it names: here no stage 1', () => {
    const image = { ...IMAGE, registers: { ...REGISTERS, IDR0: '0x0d441019' } };
    expect(walk(image).cause).toMatchObject({ field: 'STE.Config' });
    expect(walk({ ...IMAGE, ids: { IDR0: '0x0d441019' } }).cause).toMatchObject({ field: 'STE.Config' });
  });

  it('has registers of 64 bits, and 0 where none is given', () => {
    const image = {
      registers: { CR0: 1, STRTAB_BASE: '0x1_4000_0000', STRTAB_BASE_CFG: 8 },
      memory: [['0x140000000', bytes(...buildSte({ Config: 4 }))]],
    };
    expect(walk(image, 0x5000, 0)).toMatchObject({ outcome: 'ok', pa: '0x5000' });
    expect(walk({ registers: {} }, 0x5000).summary).toContain('the SMMU is off');
  });
});
