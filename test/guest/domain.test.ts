import { describe, expect, it } from 'vitest';
import { BATCH_ENTRIES } from '../../src/guest/command-queue.ts';
import type { DomainOptions, GuestDomain } from '../../src/guest/domain.ts';
import { bench, type Bench, RECORDED_IDS } from './scripted-smmu.ts';

/** The recorded SMMU has range invalidation; this one has not. */
const NO_RIL = { IDR3: RECORDED_IDS.IDR3 & ~0x400 };
const PA = 0x4100_0000;

interface DomainBench extends Bench {
  readonly domain: GuestDomain;
}

/** A device with SID 8, attached to a domain; commands up to now are forgotten. */
function attached(ids = {}, options: DomainOptions = {}): DomainBench {
  const made = bench(ids);
  made.guest.probe({ cmdqLog2: 8, eventqLog2: 8 });
  made.guest.addDevice({ sid: 8, name: 'nic' });
  const domain = made.guest.createDomain(options);
  made.guest.attach(8, domain);
  made.smmu.commands.splice(0);
  return { ...made, domain };
}

/** Fields of the TLBI_NH_VA commands sent, and the names of others. */
function invalidations({ smmu }: Bench): (string | Record<string, unknown>)[] {
  return smmu.commands.splice(0).map((words) => {
    const opcode = words[0] & 0xff;
    if (opcode === 0x46) return 'SYNC';
    if (opcode === 0x11) return `ASID ${words[1] >>> 16}`;
    if (opcode === 0x40) return 'ATC_INV';
    expect(opcode).toBe(0x12);
    return {
      asid: words[1] >>> 16,
      vmid: words[1] & 0xffff,
      address: (BigInt(words[3]) << 32n) | BigInt((words[2] & ~0xfff) >>> 0),
      leaf: words[2] & 1,
      ttl: (words[2] >>> 8) & 3,
      tg: (words[2] >>> 10) & 3,
      num: (words[0] >>> 12) & 0x1f,
      scale: (words[0] >>> 20) & 0x3f,
    };
  });
}
const va = (fields: Record<string, unknown>): Record<string, unknown> => ({
  asid: 1,
  vmid: 0,
  leaf: 1,
  ttl: 0,
  tg: 0,
  num: 0,
  scale: 0,
  ...fields,
});

describe('a domain refuses', () => {
  it.each([
    ['an IOVA inside a page', 0x1800n, PA, 0x1000, 'GUEST_BAD_ADDRESS'],
    ['a size of half a page', 0x1000n, PA, 0x800, 'GUEST_BAD_ADDRESS'],
    ['nothing', 0x1000n, PA, 0, 'GUEST_BAD_ADDRESS'],
    ['a negative IOVA', -0x1000n, PA, 0x1000, 'GUEST_BAD_ADDRESS'],
    ['an IOVA beyond 48 bits', 1n << 48n, PA, 0x1000, 'GUEST_BAD_ADDRESS'],
    ['a range that ends beyond 48 bits', (1n << 48n) - 0x1000n, PA, 0x2000, 'GUEST_BAD_ADDRESS'],
    ['memory inside a page', 0x1000n, PA + 8, 0x1000, 'GUEST_BAD_ADDRESS'],
    ['memory beyond the output address size', 0x1000n, 2 ** 44, 0x1000, 'GUEST_BAD_ADDRESS'],
  ])('%s', (_, iova, pa, size, code) => {
    const { domain } = attached();
    expect(() => domain.map(iova, pa, size)).toThrow(expect.objectContaining({ code }));
  });

  it('what is mapped already, and takes back what it mapped before it met that', () => {
    const { domain } = attached();
    domain.map(0x3000n, PA, 0x1000);
    expect(() => domain.map(0x1000n, PA, 0x4000)).toThrow(
      expect.objectContaining({ code: 'GUEST_ALREADY_MAPPED' }),
    );
    expect(domain.tables.lookup(0x1000n)).toBeUndefined();
    expect(domain.tables.lookup(0x2000n)).toBeUndefined();
    expect(domain.tables.lookup(0x3000n)).toBe(PA);
    expect(() => domain.map(0n, 0x4000_0000, 0x20_0000)).toThrow(
      expect.objectContaining({ code: 'GUEST_ALREADY_MAPPED' }),
    );
  });

  it('a granule that the SMMU does not have', () => {
    const { guest } = attached({ IDR5: 0x54 });
    expect(() => guest.createDomain({ granule: 14 })).toThrow(
      expect.objectContaining({ code: 'GUEST_NO_GRANULE' }),
    );
  });

  it('to unmap what is not mapped, after unmapping what came before', () => {
    const { domain } = attached();
    domain.map(0x1000n, PA, 0x1000);
    expect(() => domain.unmap(0x1000n, 0x3000)).toThrow(
      expect.objectContaining({ code: 'GUEST_NOT_MAPPED' }),
    );
    expect(domain.tables.lookup(0x1000n)).toBeUndefined();
  });

  it('to unmap a part of a block', () => {
    const { domain } = attached();
    domain.map(0x20_0000n, 0x4020_0000, 0x20_0000);
    expect(() => domain.unmap(0x20_1000n, 0x1000)).toThrow(
      expect.objectContaining({ code: 'GUEST_BLOCK_SPLIT' }),
    );
    expect(domain.tables.lookup(0x20_1000n)).toBe(0x4020_1000);
  });
});

describe('mapping', () => {
  it('sends nothing', () => {
    const { domain, smmu } = attached();
    smmu.accesses = [];
    domain.map(0n, 0x4000_0000, 0x60_0000);
    expect(smmu.accesses).toEqual([]);
  });

  it.each([
    [12, [2 ** 30, 2 ** 21, 2 ** 12]],
    [14, [2 ** 25, 2 ** 14]],
    [16, [2 ** 29, 2 ** 16]],
  ] as const)('uses the largest blocks of a granule of 2^%i', (granule, sizes) => {
    const { domain, memory } = attached({}, { granule });
    expect(domain.tables.leafSizes).toEqual(sizes);
    const page = 2 ** granule;
    // One leaf of each size, then a page: the IOVA is aligned to the largest, as is the memory.
    let at = 0x40_0000_0000n;
    let pa = 0x80_0000_0000;
    const total = sizes.reduce((sum, size) => sum + size, 0);
    domain.map(at, pa, total);
    for (const size of sizes) {
      expect(domain.tables.lookup(at)).toBe(pa);
      expect(domain.tables.lookup(at + BigInt(size - 1))).toBe(pa + size - 1);
      at += BigInt(size);
      pa += size;
    }
    expect(domain.tables.lookup(at)).toBeUndefined();
    // No table was needed for the block of the largest size: its descriptor is a block of the level's own table.
    expect(walk(memory, domain, 0x40_0000_0000n, page)).toBe(sizes[0]);
  });

  it.each([
    ['read-write', { read: true, write: true }, 0x0000_0000n, 0xf47n],
    ['read-only', { read: true }, 0n, 0xfc7n],
    ['privileged', { read: true, write: true, privileged: true }, 0n, 0xf07n],
    ['device memory', { write: true, mmio: true }, 0n, 0xe4bn],
    ['uncached', { write: true, uncached: true }, 0n, 0xe43n],
    ['not executable', { write: true, noExecute: true }, 0x0060_0000_0000_0000n, 0xf47n],
  ])('writes the descriptor that Linux writes for %s', (_, protection, high, low) => {
    const { domain, memory } = attached();
    domain.map(0n, PA, 0x1000, protection);
    let table = domain.tables.root;
    for (let level = 0; level < 3; level++) {
      memory.load64(0, table);
      expect(memory.lo & 3).toBe(3);
      table = (memory.lo & ~0xfff) >>> 0;
    }
    memory.load64(0, table);
    expect((BigInt(memory.hi) << 32n) | BigInt(memory.lo)).toBe(high | BigInt(PA) | low);
  });

  it('replaces an empty table by a block, and tells the device first', () => {
    const made = attached();
    made.domain.map(0x20_0000n, PA, 0x1000);
    made.domain.unmap(0x20_0000n, 0x1000);
    invalidations(made);
    made.domain.map(0x20_0000n, 0x4020_0000, 0x20_0000);
    expect(invalidations(made)).toEqual([
      va({ address: 0x20_0000n, leaf: 0, tg: 1, num: 0, scale: 9 }),
      'SYNC',
    ]);
    expect(made.domain.tables.lookup(0x30_0000n)).toBe(0x4030_0000);
  });

  it('can let the device keep access flags and dirty state', () => {
    const ids = { IDR0: (RECORDED_IDS.IDR0 | (2 << 6)) >>> 0 };
    const { domain, memory } = attached(ids, { dirtyTracking: true });
    domain.map(0n, PA, 0x1000);
    expect(domain.addressSpace(false).hardwareUpdate).toBe(true);
    let table = domain.tables.root;
    for (let level = 0; level < 3; level++) {
      memory.load64(0, table);
      table = (memory.lo & ~0xfff) >>> 0;
    }
    memory.load64(0, table);
    expect(memory.hi).toBe(1 << 19);
  });
});

/** Bytes of the leaf that maps an IOVA, by a walk of our own. */
function walk(memory: Bench['memory'], domain: GuestDomain, iova: bigint, page: number): number {
  const granule = BigInt(Math.log2(page));
  const stride = granule - 3n;
  let level = 4n - (48n - granule + stride - 1n) / stride;
  let table = domain.tables.root;
  for (; ; level++) {
    const shift = granule + (3n - level) * stride;
    const index = (iova >> shift) & ((1n << stride) - 1n);
    memory.load64(0, table + Number(index) * 8);
    if (level === 3n || (memory.lo & 2) === 0) return Number(1n << shift);
    table = memory.lo & ~(page - 1);
  }
}

describe('unmapping with range invalidation', () => {
  it('sends one command for a page, as recorded', () => {
    const made = attached();
    made.domain.map(0xffff_8000n, PA, 0x1000);
    made.domain.unmap(0xffff_8000n, 0x1000);
    expect(invalidations(made)).toEqual([va({ address: 0xffff_8000n, tg: 1, ttl: 3 }), 'SYNC']);
  });

  it('splits 59 pages as recorded: 27 and then 32', () => {
    const made = attached();
    made.domain.map(0xfff8_0000n, PA, 59 * 0x1000);
    made.domain.unmap(0xfff8_0000n, 59 * 0x1000);
    expect(invalidations(made)).toEqual([
      va({ address: 0xfff8_0000n, tg: 1, ttl: 3, num: 26 }),
      va({ address: 0xfff9_b000n, tg: 1, ttl: 3, num: 0, scale: 5 }),
      'SYNC',
    ]);
  });

  it('hints at the level of blocks', () => {
    const made = attached();
    made.domain.map(0n, 0x4000_0000, 0x40_0000);
    made.domain.unmap(0n, 0x40_0000);
    expect(invalidations(made)).toEqual([va({ address: 0n, tg: 1, ttl: 2, num: 0, scale: 10 }), 'SYNC']);
  });

  it('invalidates leaves of two sizes apart', () => {
    const made = attached();
    made.domain.map(0x1f_f000n, 0x401f_f000, 0x20_1000);
    made.domain.unmap(0x1f_f000n, 0x20_1000);
    expect(invalidations(made)).toEqual([
      va({ address: 0x1f_f000n, tg: 1, ttl: 3 }),
      'SYNC',
      va({ address: 0x20_0000n, tg: 1, ttl: 2, num: 0, scale: 9 }),
      'SYNC',
    ]);
  });

  it('drops a table with everything in it at once, not leaf only', () => {
    const made = attached();
    made.domain.map(0x20_0000n, PA + 0x1000, 0x20_0000);
    made.domain.unmap(0x20_0000n, 0x20_0000);
    expect(invalidations(made)).toEqual([
      va({ address: 0x20_0000n, leaf: 0, tg: 1, num: 0, scale: 9 }),
      'SYNC',
    ]);
  });

  it('never sends the reserved combination of TG with NUM, SCALE and TTL all 0', () => {
    for (const granule of [12, 14, 16] as const) {
      const made = attached({}, { granule });
      const page = 2 ** granule;
      for (const pages of [1, 2, 31, 32, 33, 65, 1024]) {
        made.domain.map(0n, 0x40_0000_0000, pages * page);
        made.domain.unmap(0n, pages * page);
      }
      for (const command of invalidations(made))
        if (typeof command !== 'string')
          expect([command.num, command.scale, command.ttl]).not.toEqual([0, 0, 0]);
    }
  });

  it.each([12, 14, 16] as const)('covers exactly what went, with a granule of 2^%i', (granule) => {
    const made = attached({}, { granule });
    const page = 2 ** granule;
    for (const pages of [1, 2, 3, 31, 32, 33, 59, 100, 511, 1025]) {
      const iova = 0x1000_0000n;
      made.domain.map(iova, 0x40_0000_0000 + page, pages * page);
      invalidations(made);
      made.domain.unmap(iova, pages * page);
      let at = iova;
      for (const command of invalidations(made)) {
        if (typeof command === 'string') continue;
        expect(command.address).toBe(at);
        at += BigInt((Number(command.num) + 1) * 2 ** Number(command.scale) * page);
      }
      expect(at).toBe(iova + BigInt(pages * page));
    }
  });
});

describe('unmapping without range invalidation', () => {
  it('sends one command a page, with the range fields zero', () => {
    const made = attached(NO_RIL);
    made.domain.map(0x1000n, PA, 0x3000);
    made.domain.unmap(0x1000n, 0x3000);
    expect(invalidations(made)).toEqual([
      va({ address: 0x1000n }),
      va({ address: 0x2000n }),
      va({ address: 0x3000n }),
      'SYNC',
    ]);
  });

  it('counts in pages of its own granule before it drops the ASID', () => {
    const made = attached(NO_RIL, { granule: 16 });
    made.domain.map(0n, 0x40_0000_0000, 0x1000_0000);
    made.domain.unmap(0n, 0x1000_0000);
    expect(invalidations(made).filter((command) => command !== 'SYNC')).toHaveLength(4096);
  });

  it('sends one command for the ASID from 512 pages on', () => {
    const made = attached(NO_RIL);
    made.domain.map(0x1000n, PA, 0x20_0000);
    made.domain.unmap(0x1000n, 0x20_0000 - 0x1000);
    const single = invalidations(made);
    expect(single).toHaveLength(512);
    made.domain.map(0x40_1000n, PA, 0x30_0000);
    made.domain.unmap(0x40_1000n, 0x1f_f000);
    made.domain.unmap(0x60_0000n, 0x10_1000);
    invalidations(made);
    made.domain.map(0x80_0000n, 0x4080_0000, 0x20_0000);
    made.domain.unmap(0x80_0000n, 0x20_0000);
    expect(invalidations(made)).toEqual(['ASID 1', 'SYNC']);
  });

  it('goes in batches with one CMD_SYNC at the end', () => {
    const made = attached(NO_RIL);
    made.domain.map(0x1000n, PA, 200 * 0x1000);
    made.smmu.accesses = [];
    made.domain.unmap(0x1000n, 200 * 0x1000);
    const commands = invalidations(made);
    expect(commands).toHaveLength(201);
    expect(commands.indexOf('SYNC')).toBe(200);
    const doorbells = made.smmu.accesses.filter((access) => access.startsWith('w 0x98'));
    expect(doorbells).toHaveLength(Math.ceil(200 / BATCH_ENTRIES));
  });
});

describe('other invalidations', () => {
  it('go to the devices after the SMMU, in a window of their own, over an aligned power of two', () => {
    const made = bench({ IDR0: (RECORDED_IDS.IDR0 | (1 << 10)) >>> 0 });
    made.guest.probe({ cmdqLog2: 8 });
    made.guest.addDevice({ sid: 8, name: 'nic', ats: { enable() {}, disable() {} } });
    const domain = made.guest.attach(8);
    domain.map(0x7000n, PA, 0x2000);
    made.smmu.commands.splice(0);
    domain.unmap(0x7000n, 0x2000);
    const [tlbi, sync, atc, atcSync] = made.smmu.commands;
    expect([tlbi[0] & 0xff, sync[0] & 0xff, atcSync[0] & 0xff]).toEqual([0x12, 0x46, 0x46]);
    // Pages 7 and 8 differ in four bits.
    expect([...atc]).toEqual([0x40, 8, 4, 0]);
  });

  it('of a lazy domain wait for a flush, which drops the ASID', () => {
    const made = attached({}, { lazy: true });
    made.domain.map(0x1000n, PA, 0x3000);
    made.domain.unmap(0x1000n, 0x3000);
    expect(invalidations(made)).toEqual([]);
    made.domain.flush();
    expect(invalidations(made)).toEqual(['ASID 1', 'SYNC']);
  });

  it('of a freed domain drop the ASID before its memory is used again', () => {
    const made = attached();
    made.guest.detach(8);
    made.smmu.commands.splice(0);
    made.domain.free();
    expect(invalidations(made)).toEqual(['ASID 1', 'SYNC']);
  });
});
