import { describe, expect, it } from 'vitest';
import { GuestDriverError } from '../../src/guest/errors.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { bench, RECORDED_IDS } from './scripted-smmu.ts';

const idr0 = (clear: number, set: number): number => ((RECORDED_IDS.IDR0 & ~clear) | set) >>> 0;

/** The code of the error that `run` throws. */
function codeOf(run: () => void): string {
  try {
    run();
  } catch (error) {
    if (error instanceof GuestDriverError) return error.code;
    throw error;
  }
  return 'none';
}

describe('the driver refuses', () => {
  it.each([
    ['big-endian tables', { IDR0: idr0(3 << 21, 3 << 21) }, 'GUEST_TT_ENDIAN'],
    ['a reserved endianness', { IDR0: idr0(3 << 21, 1 << 21) }, 'GUEST_TT_ENDIAN'],
    ['an SMMU that translates nothing', { IDR0: idr0(3, 0) }, 'GUEST_NO_TRANSLATION'],
    ['an SMMU with AArch32 tables only', { IDR0: idr0(3 << 2, 1 << 2) }, 'GUEST_NO_AARCH64'],
    ['preset tables', { IDR1: (RECORDED_IDS.IDR1 | (1 << 30)) >>> 0 }, 'GUEST_PRESET'],
    ['preset queues', { IDR1: RECORDED_IDS.IDR1 | (1 << 29) }, 'GUEST_PRESET'],
    ['relative bases', { IDR1: RECORDED_IDS.IDR1 | (1 << 28) }, 'GUEST_PRESET'],
    ['64 commands', { IDR1: 0x00d3_0010 }, 'GUEST_CMDQ_TOO_SMALL'],
    ['no granule', { IDR5: 0x04 }, 'GUEST_NO_GRANULE'],
  ])('%s, and writes no register', (_, ids, code) => {
    const { guest, smmu } = bench(ids);
    expect(codeOf(() => guest.probe())).toBe(code);
    expect(smmu.accesses.filter((access) => access.startsWith('w'))).toEqual([]);
    expect(guest.warnings).toHaveLength(1);
    expect(guest.probed).toBe(false);
  });

  it('with the errno that Linux returns', () => {
    const { guest } = bench({ IDR0: idr0(3, 0) });
    expect(() => guest.probe()).toThrow(expect.objectContaining({ errno: 'ENXIO' }));
  });
});

describe('the driver gives up', () => {
  it.each([
    ['when CR0ACK does not follow CR0 := 0', OFFSET.CR0, 0x0, 'failed to clear cr0'],
    ['when the command queue is not acknowledged', OFFSET.CR0, 0x8, 'failed to enable command queue'],
    ['when the event queue is not acknowledged', OFFSET.CR0, 0xc, 'failed to enable event queue'],
    ['when SMMUEN is not acknowledged', OFFSET.CR0, 0xd, 'failed to enable SMMU interface'],
    ['when the interrupts are not acknowledged', OFFSET.IRQ_CTRL, 0x5, 'failed to enable irqs'],
  ])('%s', (_, offset, value, text) => {
    const { guest, smmu } = bench();
    if (value === 0) smmu.values.set(OFFSET.CR0ACK, 0x9);
    smmu.onWrite = (at, written) => at === offset && written === value;
    expect(codeOf(() => guest.probe())).toBe('GUEST_ACK_TIMEOUT');
    expect(guest.warnings).toEqual([text]);
    expect(guest.probed).toBe(false);
  });

  it('when a bit that it wrote is missing from CR0ACK', () => {
    const { guest, smmu } = bench();
    smmu.onRead = (offset) => (offset === OFFSET.CR0ACK ? smmu.values.get(OFFSET.CR0)! & ~4 : undefined);
    expect(codeOf(() => guest.probe())).toBe('GUEST_ACK_TIMEOUT');
  });

  it('when commands are not consumed', () => {
    const { guest, smmu } = bench();
    smmu.onRead = (offset) => (offset === OFFSET.CMDQ_CONS ? 0 : undefined);
    expect(codeOf(() => guest.probe())).toBe('GUEST_SYNC_TIMEOUT');
    expect(guest.warnings).toEqual(['CMD_SYNC timeout at 0x00000001 [hwprod 0x00000002, hwcons 0x00000000]']);
  });

  it('when GBPA.UPDATE stays set', () => {
    const { guest, smmu } = bench();
    smmu.values.set(OFFSET.CR0, 1);
    smmu.values.set(OFFSET.GBPA, 0x8000_0000);
    expect(codeOf(() => guest.probe())).toBe('GUEST_GBPA_TIMEOUT');
    expect(guest.warnings).toEqual(['SMMU currently enabled! Resetting...', 'GBPA not responding to update']);
  });

  it('when the RAM that it was given is not there', () => {
    const { guest } = bench({}, { ram: { base: 0x9000_0000, size: 0x100_0000 } });
    expect(codeOf(() => guest.probe())).toBe('GUEST_NO_RAM');
  });

  it('when there is no memory for a queue, after halving it down to a page', () => {
    const { guest } = bench({}, { ram: { base: 0x4000_0000, size: 0x1000 } });
    expect(codeOf(() => guest.probe())).toBe('GUEST_OUT_OF_MEMORY');
    expect(guest.warnings).toEqual(['failed to allocate queue (0x1000 bytes) for evtq']);
  });

  it('when it is loaded twice', () => {
    const { guest } = bench();
    guest.probe();
    expect(codeOf(() => guest.probe())).toBe('GUEST_ALREADY_PROBED');
  });
});

describe('probe', () => {
  it('makes the accesses that Linux 7.3 was recorded to make, in their order', () => {
    const { guest, smmu } = bench();
    guest.probe();
    const recorded = [
      ['r 0x0', 'r 0x4', 'r 0xc', 'r 0x14', 'r 0x18', 'r 0x20'],
      ['w 0x20=0x0', 'r 0x24', 'w 0x28=0xd75', 'w 0x2c=0x6'],
      [/^w64 0x80=0x40000000:0x4.*[048c]0$/, 'w 0x88=0x10210'],
      [/^w64 0x90=0x40000000:0x4.*12$/, 'w 0x98=0x0', 'w 0x9c=0x0', 'w 0x20=0x8', 'r 0x24'],
      ['w 0x98=0x2', 'r 0x9c', 'w 0x98=0x4', 'r 0x9c'],
      [/^w64 0xa0=0x40000000:0x4.*11$/, 'w 0x100a8=0x0', 'w 0x100ac=0x0', 'w 0x20=0xc', 'r 0x24'],
      ['w 0x50=0x0', 'r 0x54', 'w64 0x68=0x0:0x0', 'w64 0xb0=0x0:0x0', 'w 0x50=0x5', 'r 0x54'],
      ['w 0x20=0xd', 'r 0x24'],
    ].flat();
    expect(smmu.accesses).toEqual(
      recorded.map((access) => (access instanceof RegExp ? expect.stringMatching(access) : access)),
    );
    expect(smmu.takeOpcodes()).toEqual(['CFGI_STE_RANGE', 'SYNC', 'TLBI_NSNH_ALL', 'SYNC']);
    expect(guest.warnings).toEqual([]);
  });

  it('sends CFGI_ALL with range 31, and CMD_SYNC with CS=SEV, as Linux encodes them', () => {
    const { guest, smmu } = bench();
    guest.probe();
    expect([...smmu.commands[0]]).toEqual([0x04, 0, 0x1f, 0]);
    expect([...smmu.commands[1]]).toEqual([0x0fc0_2046, 0, 0, 0]);
    expect([...smmu.commands[2]]).toEqual([0x30, 0, 0, 0]);
  });

  it('says what Linux says', () => {
    const { guest } = bench();
    guest.probe();
    expect(guest.dmesg).toEqual([
      'arm-smmu-v3 3e000000.smmuv3: oas 44-bit (features 0x00008305)',
      'arm-smmu-v3 3e000000.smmuv3: allocated 262144 entries for cmdq',
      'arm-smmu-v3 3e000000.smmuv3: allocated 131072 entries for evtq',
    ]);
  });

  it('clears EVENTQEN again with SMMUEN in a kdump kernel', () => {
    const { guest, smmu } = bench();
    guest.probe({ kdump: true });
    const cr0 = smmu.accesses.filter((access) => access.startsWith('w 0x20'));
    expect(cr0).toEqual(['w 0x20=0x0', 'w 0x20=0x8', 'w 0x20=0xc', 'w 0x20=0x9']);
  });

  it('aborts what comes first if it finds the SMMU enabled, and leaves it so', () => {
    const { guest, smmu } = bench();
    smmu.values.set(OFFSET.CR0, 0xd);
    smmu.values.set(OFFSET.CR0ACK, 0xd);
    smmu.values.set(OFFSET.GBPA, 0x1000);
    smmu.onWrite = (offset, value) => {
      if (offset !== OFFSET.GBPA) return false;
      smmu.values.set(offset, value & 0x7fff_ffff);
      return true;
    };
    guest.probe({ kdump: true });
    const writes = smmu.accesses.filter((access) => access.startsWith('w'));
    expect(writes.slice(0, 2)).toEqual(['w 0x44=0x80101000', 'w 0x20=0x0']);
    expect(smmu.values.get(OFFSET.GBPA)).toBe(0x10_1000);
    expect(guest.warnings).toEqual(['SMMU currently enabled! Resetting...']);
  });

  it('enables ATS checks and the PRI queue if there are any', () => {
    const { guest, smmu } = bench({ IDR0: idr0(0, (1 << 10) | (1 << 16)), IDR1: 0x0273_4010 });
    guest.probe();
    const cr0 = smmu.accesses.filter((access) => access.startsWith('w 0x20='));
    expect(cr0.map((access) => access.slice(7))).toEqual(['0x0', '0x8', '0xc', '0xe', '0x1e', '0x1f']);
    expect(smmu.accesses).toContain('w64 0xd0=0x0:0x0');
    expect(smmu.accesses).toContain('w 0x50=0x7');
    expect(smmu.accesses.filter((access) => /^w(64)? 0x(c0|100c8|100cc)=/.test(access))).toHaveLength(3);
  });

  it('has EL2 translations dropped if there is an EL2, and uses E2H only with VHE', () => {
    const hyp = { IDR0: idr0(0, (1 << 9) | 1) };
    const { guest, smmu } = bench(hyp);
    guest.probe();
    expect(smmu.takeOpcodes()).toEqual([
      'CFGI_STE_RANGE',
      'SYNC',
      'TLBI_EL2_ALL',
      'SYNC',
      'TLBI_NSNH_ALL',
      'SYNC',
    ]);
    expect(smmu.accesses).toContain('w 0x2c=0x6');
    const vhe = bench(hyp, { vhe: true });
    vhe.guest.probe();
    expect(vhe.smmu.accesses).toContain('w 0x2c=0x7');
  });

  it('has interrupts written to the doorbell if it can', () => {
    const doorbell = { address: 0x809_0040, eventq: 5, gerror: 6, priq: 7 };
    const { guest, smmu } = bench({ IDR0: idr0(0, 1 << 13) }, { doorbell });
    guest.probe();
    const writes = smmu.accesses.filter((access) => access.startsWith('w'));
    const from = writes.indexOf('w64 0x68=0x0:0x0');
    expect(writes.slice(from, from + 9)).toEqual([
      'w64 0x68=0x0:0x0',
      'w64 0xb0=0x0:0x0',
      'w64 0xb0=0x0:0x8090040',
      'w 0xb8=0x5',
      'w 0xbc=0x1',
      'w64 0x68=0x0:0x8090040',
      'w 0x70=0x6',
      'w 0x74=0x1',
      'w 0x50=0x5',
    ]);
  });

  it('falls back to wires without a doorbell, and still polls memory for CMD_SYNC', () => {
    const { guest, smmu } = bench({ IDR0: idr0(0, 1 << 13) });
    guest.probe();
    expect(guest.dmesg).toContain(
      'arm-smmu-v3 3e000000.smmuv3: msi_domain absent - falling back to wired irqs',
    );
    const base = smmu.values.get(OFFSET.CMDQ_BASE)! & ~0x1f;
    // CS=IRQ, and the address of the second slot.
    expect([...smmu.commands[1]]).toEqual([0x0fc0_1046, 0, base + 16, 0]);
    expect(smmu.accesses.filter((access) => access === 'r 0x9c')).toEqual([]);
  });

  it('makes a linear table if that covers all of few StreamIDs, or has no other', () => {
    const few = bench({ IDR1: (RECORDED_IDS.IDR1 & ~0x3f) | 8 });
    few.guest.probe();
    expect(few.smmu.accesses).toContain('w 0x88=0x8');
    const linear = bench({ IDR0: idr0(3 << 27, 0), IDR1: (RECORDED_IDS.IDR1 & ~0x3f) | 12 });
    linear.guest.probe();
    expect(linear.smmu.accesses).toContain('w 0x88=0xc');
    const base = (linear.smmu.values.get(OFFSET.STRTAB_BASE)! & ~0x3f) >>> 0;
    for (const sid of [0, 1, 2 ** 12 - 1]) {
      linear.memory.load64(0, base + sid * 64);
      expect([linear.memory.hi, linear.memory.lo]).toEqual([0, 1]);
    }
  });

  it('covers 25 bits of StreamID at most, and says so', () => {
    const { guest, smmu } = bench({ IDR1: (RECORDED_IDS.IDR1 & ~0x3f) | 32 });
    guest.probe();
    expect(smmu.accesses).toContain('w 0x88=0x10219');
    expect(guest.warnings).toEqual(['2-level strtab only covers 25/32 bits of SID']);
  });

  it('takes smaller queues if told to, as firmware does', () => {
    const { guest, smmu } = bench();
    guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    expect(smmu.values.get(OFFSET.CMDQ_BASE)! & 0x1f).toBe(8);
    expect(smmu.values.get(OFFSET.EVENTQ_BASE)! & 0x1f).toBe(4);
  });

  it('halves a queue that memory has no room for', () => {
    const { guest, smmu } = bench({}, { ram: { base: 0x4000_0000, size: 0x31_0000 } });
    guest.probe();
    expect(smmu.values.get(OFFSET.CMDQ_BASE)! & 0x1f).toBe(17);
    expect(smmu.values.get(OFFSET.EVENTQ_BASE)! & 0x1f).toBe(15);
  });

  it('believes the firmware about coherency, and says so', () => {
    const { guest } = bench({}, { firmwareCoherent: false });
    guest.probe();
    expect(guest.warnings).toEqual(['IDR0.COHACC overridden by FW configuration (false)']);
  });

  it('truncates an address size that it does not know', () => {
    const { guest } = bench({ IDR5: 0x77 });
    guest.probe();
    expect(guest.dmesg[0]).toMatch(/unknown output address size. Truncating to 48-bit$/);
    expect(guest.features.oasBits).toBe(48);
  });

  it('lets the streams of reserved regions pass, and no others, without any CFGI but CFGI_ALL', () => {
    const region = { base: 0x800_0000, size: 0x10_0000, sids: [0x12, 0x300] };
    const { guest, smmu, memory } = bench({}, { reservedRegions: [region] });
    guest.probe();
    const l1 = (smmu.values.get(OFFSET.STRTAB_BASE)! & ~0x3f) >>> 0;
    const steOf = (sid: number): number => {
      memory.load64(0, l1 + (sid >>> 8) * 8);
      expect(memory.lo & 0x1f).toBe(9);
      memory.load64(0, ((memory.lo & ~0x3f) >>> 0) + (sid & 0xff) * 64);
      return memory.lo;
    };
    expect(steOf(0x12)).toBe(0b1001);
    expect(steOf(0x13)).toBe(0b0001);
    expect(steOf(0x300)).toBe(0b1001);
    expect(smmu.takeOpcodes()).toEqual(['CFGI_STE_RANGE', 'SYNC', 'TLBI_NSNH_ALL', 'SYNC']);
  });
});

describe('shutdown', () => {
  it('writes CR0 := 0 and waits for it, as before a kexec', () => {
    const { guest, smmu } = bench();
    guest.probe();
    smmu.accesses = [];
    guest.shutdown();
    expect(smmu.accesses).toEqual(['w 0x20=0x0', 'r 0x24']);
    expect(guest.probed).toBe(false);
  });

  it('lets the next kernel probe without a warning, with other queues', () => {
    const { guest, smmu } = bench();
    guest.probe({ eventqLog2: 4 });
    guest.shutdown();
    guest.probe({ eventqLog2: 7 });
    expect(smmu.values.get(OFFSET.EVENTQ_BASE)! & 0x1f).toBe(7);
    expect(guest.warnings).toEqual([]);
  });

  it('is refused without a driver', () => {
    expect(codeOf(() => bench().guest.shutdown())).toBe('GUEST_NOT_PROBED');
  });
});
