import { describe, expect, it } from 'vitest';
import { OFFSET } from '../../src/spec/registers.ts';
import { bench, type Bench, RECORDED_IDS } from './scripted-smmu.ts';

const WITH_ATS = { IDR0: (RECORDED_IDS.IDR0 | (1 << 10)) >>> 0 };
/** 16 bits of SubstreamID; with CD2L, 2-level tables of CDs. */
const WITH_SSIDS = { IDR1: RECORDED_IDS.IDR1 | (16 << 6) };
const WITH_CD2L = { ...WITH_SSIDS, IDR0: (RECORDED_IDS.IDR0 | (1 << 19)) >>> 0 };
/** IDR1.ATTR_TYPES_OVR: bypass then uses SHCFG. */
const WITH_TYPES = { IDR1: RECORDED_IDS.IDR1 | (1 << 27) };

/** Probed, with the commands of the probe forgotten. */
function probed(ids = {}, options = {}): Bench {
  const made = bench(ids, options);
  made.guest.probe();
  made.smmu.takeOpcodes();
  return made;
}

/** 64-bit words of a structure, as hexadecimal. */
function dwords({ memory }: Bench, at: number, n: number): string[] {
  const words: string[] = [];
  for (let i = 0; i < n; i++) {
    memory.load64(0, at + 8 * i);
    words.push(((BigInt(memory.hi) << 32n) | BigInt(memory.lo)).toString(16));
  }
  return words;
}

function steAddress(made: Bench, sid: number): number {
  const l1 = (made.smmu.values.get(OFFSET.STRTAB_BASE)! & ~0x3f) >>> 0;
  made.memory.load64(0, l1 + (sid >>> 8) * 8);
  return ((made.memory.lo & ~0x3f) >>> 0) + (sid & 0xff) * 64;
}
const ste = (made: Bench, sid: number): string[] => dwords(made, steAddress(made, sid), 2);
const cdTable = (made: Bench, sid: number): number =>
  Number(BigInt(`0x${ste(made, sid)[0]}`) & 0xf_ffff_ffff_ffc0n);

const CFGI_CD = ['CFGI_CD', 'SYNC'];
const CFGI_STE = ['CFGI_STE', 'SYNC'];
const PREFETCH = ['PREFETCH_CONFIG'];
const times = (n: number, what: readonly string[]): string[] => Array.from({ length: n }, () => what).flat();

describe('adding a device', () => {
  it('fills 256 entries that abort, and sends nothing', () => {
    const made = probed();
    made.guest.addDevice({ sid: 0x208, name: '0000:02:01.0' });
    expect(made.smmu.takeOpcodes()).toEqual([]);
    const l1 = (made.smmu.values.get(OFFSET.STRTAB_BASE)! & ~0x3f) >>> 0;
    made.memory.load64(0, l1 + 16);
    expect(made.memory.lo & 0x3f).toBe(9);
    for (const sid of [0x200, 0x208, 0x2ff]) expect(ste(made, sid)).toEqual(['1', '0']);
    made.memory.load64(0, l1);
    expect([made.memory.hi, made.memory.lo]).toEqual([0, 0]);
  });

  it.each([
    ['a StreamID that is out of range', 0x1_0000, 'GUEST_ID_RANGE'],
    ['a StreamID that is taken', 8, 'GUEST_DEVICE_EXISTS'],
  ])('refuses %s', (_, sid, code) => {
    const { guest } = probed();
    guest.addDevice({ sid: 8, name: 'a' });
    expect(() => guest.addDevice({ sid, name: 'b' })).toThrow(expect.objectContaining({ code }));
  });

  it('is refused for a device that nobody knows', () => {
    const { guest } = probed();
    expect(() => guest.attach(9)).toThrow(expect.objectContaining({ code: 'GUEST_UNKNOWN_DEVICE' }));
  });
});

describe('attaching', () => {
  it('sends what Linux 7.3 was recorded to send: two CFGI_CD, two CFGI_STE, a prefetch', () => {
    const { guest, smmu } = probed();
    guest.addDevice({ sid: 0x38, name: '0000:00:07.0' });
    smmu.accesses = [];
    guest.attach(0x38);
    expect(smmu.takeOpcodes()).toEqual([...times(2, CFGI_CD), ...times(2, CFGI_STE), ...PREFETCH]);
    // Each pair with one PROD write and one look at CONS; nothing waits for the prefetch.
    const writes = ['0x6', '0x8', '0xa', '0xc'].flatMap((prod) => [`w 0x98=${prod}`, 'r 0x9c']);
    expect(smmu.accesses).toEqual([...writes, 'w 0x98=0xd']);
    expect(guest.warnings).toEqual([]);
  });

  it('writes the STE and CD words that Linux writes', () => {
    const made = probed();
    made.guest.addDevice({ sid: 0x38, name: '0000:00:07.0' });
    const domain = made.guest.attach(0x38);
    const [low, high] = ste(made, 0x38);
    // As recorded: Config=5 and V below the pointer; S1DSS, S1CIR, S1COR and S1CSH in 0xd6.
    expect(BigInt(`0x${low}`) & 0x3fn).toBe(0xbn);
    expect(high).toBe('d6');
    const cd = dwords(made, cdTable(made, 0x38), 8);
    // T0SZ 16, 4 KiB, write-back walks, EPD1, V; IPS 44 bits, AA64, R, A, ASET, ASID 1.
    expect(cd[0]).toBe((0x0001_e204_c000_3510n | (1n << 31n) | (1n << 30n)).toString(16));
    expect(cd[1]).toBe(domain.tables.root.toString(16));
    expect(cd.slice(2)).toEqual(['0', 'f404ff44', '0', '0', '0', '0']);
  });

  it('names the device in its invalidations, leaf only', () => {
    const { guest, smmu } = probed();
    guest.addDevice({ sid: 0x38, name: '0000:00:07.0' });
    smmu.commands.splice(0);
    guest.attach(0x38);
    expect([...smmu.commands[0]]).toEqual([0x05, 0x38, 1, 0]);
    expect([...smmu.commands[4]]).toEqual([0x03, 0x38, 1, 0]);
    expect([...smmu.commands[8]]).toEqual([0x01, 0x38, 0, 0]);
  });

  it.each([
    ['abort to stage 1', {}, 'blocked', 'domain', [...times(2, CFGI_CD), ...times(2, CFGI_STE)]],
    ['abort to bypass', {}, 'blocked', 'identity', times(1, CFGI_STE)],
    ['abort to bypass with SHCFG', WITH_TYPES, 'blocked', 'identity', times(2, CFGI_STE)],
    ['bypass with SHCFG to abort', WITH_TYPES, 'identity', 'blocked', times(2, CFGI_STE)],
    ['stage 1 to abort', {}, 'domain', 'blocked', times(2, CFGI_STE)],
    ['stage 1 to bypass with SHCFG', WITH_TYPES, 'domain', 'identity', times(3, CFGI_STE)],
    [
      'bypass with SHCFG to stage 1',
      WITH_TYPES,
      'identity',
      'domain',
      [...times(2, CFGI_CD), ...times(3, CFGI_STE)],
    ],
  ])('%s takes as many steps as in Linux', (_, ids, from, to, steps) => {
    const { guest, smmu } = probed(ids);
    guest.addDevice({ sid: 8, name: 'nic' });
    const go = (mode: string): void => {
      if (mode === 'domain') guest.attach(8);
      else if (mode === 'identity') guest.attachIdentity(8);
      else guest.detach(8);
    };
    go(from);
    smmu.takeOpcodes();
    go(to);
    const after = from === 'domain' ? times(2, CFGI_CD) : [];
    expect(smmu.takeOpcodes()).toEqual([...steps, ...PREFETCH, ...after]);
  });

  it('switches domains by rewriting the CD, invalid in between, and leaves the STE alone', () => {
    const made = probed();
    const { guest, smmu } = made;
    guest.addDevice({ sid: 8, name: 'nic' });
    guest.attach(8, guest.createDomain());
    const before = ste(made, 8);
    smmu.takeOpcodes();
    const seen: boolean[] = [];
    smmu.onWrite = (offset) => {
      if (offset === OFFSET.CMDQ_PROD) {
        made.memory.load64(0, cdTable(made, 8));
        seen.push((made.memory.lo & (1 << 31)) !== 0);
      }
      return false;
    };
    guest.attach(8, guest.createDomain());
    expect(smmu.takeOpcodes()).toEqual([...times(3, CFGI_CD), ...PREFETCH]);
    expect(seen).toEqual([false, false, true, true]);
    expect(ste(made, 8)).toEqual(before);
  });

  it('to the same domain again sends nothing but the prefetch', () => {
    const { guest, smmu } = probed();
    guest.addDevice({ sid: 8, name: 'nic' });
    const domain = guest.createDomain();
    guest.attach(8, domain);
    smmu.takeOpcodes();
    guest.attach(8, domain);
    expect(smmu.takeOpcodes()).toEqual(PREFETCH);
  });

  it('maps the reserved regions of a device before it leaves bypass', () => {
    const region = { base: 0x800_0000, size: 0x10_0000, sids: [8] };
    const made = probed({}, { reservedRegions: [region] });
    const { guest, smmu } = made;
    guest.addDevice({ sid: 8, name: 'nic' });
    expect(ste(made, 8)[0]).toBe('9');
    const domain = guest.attach(8);
    expect(domain.tables.lookup(0x80f_f123n)).toBe(0x80f_f123);
    expect(smmu.takeOpcodes()).toEqual([...times(2, CFGI_CD), ...times(2, CFGI_STE), ...PREFETCH]);
  });
});

describe('ATS', () => {
  it('is switched on in the device only after its STE and with an empty cache, and off before its STE', () => {
    const { guest, smmu } = probed(WITH_ATS);
    const at: string[] = [];
    const note = (what: string) => (): void => void at.push(`${what} after ${smmu.takeOpcodes().join(' ')}`);
    guest.addDevice({ sid: 8, name: 'nic', ats: { enable: note('on'), disable: note('off') } });
    guest.attach(8);
    expect(at).toEqual([
      `on after ${[...times(2, CFGI_CD), ...times(2, CFGI_STE), ...PREFETCH, 'ATC_INV', 'SYNC'].join(' ')}`,
    ]);
    guest.detach(8);
    expect(at[1]).toBe('off after ');
    // EATS goes first, on its own: the device asks no more.
    expect(smmu.takeOpcodes()).toEqual([
      ...times(3, CFGI_STE),
      ...PREFETCH,
      'ATC_INV',
      'SYNC',
      ...times(2, CFGI_CD),
    ]);
  });

  it('sets EATS, and invalidates everything with size 52', () => {
    const made = probed(WITH_ATS);
    made.guest.addDevice({ sid: 8, name: 'nic', ats: { enable() {}, disable() {} } });
    made.smmu.commands.splice(0);
    made.guest.attach(8);
    expect(ste(made, 8)[1]).toBe('100000d6');
    const atc = made.smmu.commands.find((words) => (words[0] & 0xff) === 0x40)!;
    expect([...atc]).toEqual([0x40, 8, 52, 0]);
  });

  it('is left alone in an SMMU without it', () => {
    const { guest } = probed();
    let on = false;
    guest.addDevice({ sid: 8, name: 'nic', ats: { enable: () => (on = true), disable() {} } });
    guest.attach(8);
    expect(on).toBe(false);
  });
});

describe('SubstreamIDs', () => {
  it('get CDs of their own in a linear table', () => {
    const made = probed(WITH_SSIDS);
    made.guest.addDevice({ sid: 8, name: 'gpu', ssidBits: 6 });
    made.guest.attach(8);
    made.smmu.commands.splice(0);
    const domain = made.guest.createDomain();
    made.guest.device(8).attachPasid(5, domain);
    // CFGI_CD carries the SubstreamID, and the STE needs no change.
    expect([...made.smmu.commands[0]]).toEqual([0x5005, 8, 1, 0]);
    expect(made.smmu.takeOpcodes()).toEqual(times(2, CFGI_CD));
    expect(BigInt(`0x${ste(made, 8)[0]}`) >> 59n).toBe(6n);
    expect(dwords(made, cdTable(made, 8) + 5 * 64, 2)[1]).toBe(domain.tables.root.toString(16));
  });

  it('beyond 10 bits get leaves of 64 KiB, with the first level invalidated when one is added', () => {
    const made = probed(WITH_CD2L);
    made.guest.addDevice({ sid: 8, name: 'gpu', ssidBits: 16 });
    made.guest.attach(8);
    const low = BigInt(`0x${ste(made, 8)[0]}`);
    expect((low >> 4n) & 3n).toBe(2n);
    expect(low >> 59n).toBe(16n);
    made.smmu.commands.splice(0);
    made.guest.device(8).attachPasid(0x1805, made.guest.createDomain());
    expect([...made.smmu.commands[0]]).toEqual([0x0180_5005, 8, 0, 0]);
    const [l1] = dwords(made, cdTable(made, 8) + 6 * 8, 1);
    expect(BigInt(`0x${l1}`) & 0xfffn).toBe(1n);
  });

  it('are capped at 10 bits without 2-level tables', () => {
    const made = probed(WITH_SSIDS);
    made.guest.addDevice({ sid: 8, name: 'gpu', ssidBits: 16 });
    made.guest.attach(8);
    expect(() => made.guest.device(8).attachPasid(1024, made.guest.createDomain())).toThrow(
      expect.objectContaining({ code: 'GUEST_ID_RANGE' }),
    );
  });

  it('turn bypass into stage 1 with S1DSS=bypass, and back', () => {
    const made = probed(WITH_SSIDS);
    const gpu = made.guest.addDevice({ sid: 8, name: 'gpu', ssidBits: 4 });
    made.guest.attachIdentity(8);
    gpu.attachPasid(3, made.guest.createDomain());
    expect(BigInt(`0x${ste(made, 8)[0]}`) & 0xfn).toBe(0b1011n);
    expect(BigInt(`0x${ste(made, 8)[1]}`) & 3n).toBe(1n);
    gpu.detachPasid(3);
    expect(ste(made, 8)).toEqual(['9', '0']);
  });

  it('of a blocked device leave the rest aborting', () => {
    const made = probed(WITH_SSIDS);
    const gpu = made.guest.addDevice({ sid: 8, name: 'gpu', ssidBits: 4 });
    gpu.attachPasid(3, made.guest.createDomain());
    expect(BigInt(`0x${ste(made, 8)[1]}`) & 3n).toBe(0n);
  });
});

describe('removing a device', () => {
  it('makes it abort, drops its translations, and gives all memory back', () => {
    const made = probed();
    const { guest, smmu } = made;
    const before = guest.allocate(0x1000);
    guest.addDevice({ sid: 8, name: 'nic' });
    for (let round = 0; round < 3; round++) {
      if (round > 0) guest.addDevice({ sid: 8, name: 'nic' });
      const domain = guest.attach(8);
      domain.map(0n, 0x4100_0000, 0x1000);
      smmu.takeOpcodes();
      guest.removeDevice(8);
      expect(smmu.takeOpcodes()).toEqual([
        ...times(2, CFGI_STE),
        ...PREFETCH,
        ...times(2, CFGI_CD),
        'TLBI_NH_ASID',
        'SYNC',
      ]);
      expect(ste(made, 8)).toEqual(['1', '0']);
    }
    // Three rounds used one set of pages: the next page is still near.
    expect(guest.allocate(0x1000) - before).toBeLessThan(0x2_0000);
  });

  it('keeps a domain that others use', () => {
    const { guest } = probed();
    guest.addDevice({ sid: 8, name: 'a' });
    guest.addDevice({ sid: 9, name: 'b' });
    const domain = guest.createDomain();
    guest.attach(8, domain);
    guest.attach(9, domain);
    guest.removeDevice(8);
    expect(() => domain.free()).toThrow(expect.objectContaining({ code: 'GUEST_DOMAIN_BUSY' }));
    guest.removeDevice(9);
    domain.free();
    expect(() => domain.map(0n, 0x4000_0000, 0x1000)).toThrow(
      expect.objectContaining({ code: 'GUEST_BAD_DOMAIN' }),
    );
  });

  it('lets an ASID be used again', () => {
    const { guest } = probed();
    const first = guest.createDomain();
    const second = guest.createDomain();
    expect([first.asid, second.asid]).toEqual([1, 2]);
    first.free();
    expect(guest.createDomain().asid).toBe(1);
  });
});
