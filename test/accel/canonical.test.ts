import { describe, expect, it } from 'vitest';
import { canonicalise, type CommandLimits } from '../../src/accel/canonical.ts';

const ALL: CommandLimits = { ril: true, ds: true, asid16: true, ats: true, substreams: true };

/** Two 64-bit words, as vsmmu-kernel and ground-truth print commands. */
const words = (word0: bigint, word1: bigint): Uint32Array =>
  Uint32Array.of(
    Number(word0 & 0xffff_ffffn),
    Number(word0 >> 32n),
    Number(word1 & 0xffff_ffffn),
    Number(word1 >> 32n),
  );

function canonical(word0: bigint, word1: bigint, limits: Partial<CommandLimits> = {}): string | undefined {
  const to = new Uint32Array(12).fill(0xdead_beef);
  if (!canonicalise(words(word0, word1), 0, to, 4, { ...ALL, ...limits })) return undefined;
  expect([...to.subarray(0, 4), ...to.subarray(8)]).toEqual(new Array(8).fill(0xdead_beef));
  const [a, b, c, d] = [...to.subarray(4, 8)].map((word) => word.toString(16).padStart(8, '0'));
  return `${b}${a} ${d}${c}`;
}

/** What Linux 7.3 lets through: opcode -> masks of both words, with everything that the host can have. */
const KERNEL_MASKS: Readonly<Record<number, readonly [bigint, bigint]>> = {
  0x30: [0xffn, 0n],
  0x10: [0x0000_ffff_0000_00ffn, 0n],
  0x11: [0xffff_ffff_0000_00ffn, 0n],
  0x12: [0xffff_ffff_03f1_f0ffn, 0xffff_ffff_ffff_ff01n],
  0x13: [0x0000_ffff_03f1_f0ffn, 0xffff_ffff_ffff_ff01n],
  0x40: [0xffff_ffff_ffff_faffn, 0xffff_ffff_ffff_f03fn],
  0x05: [0xffff_ffff_ffff_f0ffn, 1n],
  0x06: [0xffff_ffff_0000_00ffn, 0n],
};

describe('canonical commands', () => {
  it('no bit outside what the kernel takes survives, whatever the guest wrote', () => {
    for (const [opcode, [mask0, mask1]] of Object.entries(KERNEL_MASKS)) {
      const text = canonical(0xffff_ffff_ffff_ff00n | BigInt(opcode), 0xffff_ffff_ffff_ffffn)!;
      const [word0, word1] = text.split(' ').map((word) => BigInt(`0x${word}`));
      expect(word0 & ~mask0, `opcode ${opcode}`).toBe(0n);
      expect(word1 & ~mask1, `opcode ${opcode}`).toBe(0n);
      expect(word0 & 0xffn).toBe(BigInt(opcode));
    }
  });

  it.each([
    0x01, 0x02, 0x03, 0x04, 0x07, 0x20, 0x21, 0x22, 0x23, 0x28, 0x2a, 0x41, 0x44, 0x45, 0x46, 0x70, 0xff,
  ])('opcode %i never goes to the host', (opcode) => {
    expect(canonical(BigInt(opcode), 0n)).toBeUndefined();
  });

  it('gap 14: TG without NUM, SCALE and TTL becomes a single address', () => {
    expect(canonical(0x0005_0000_0000_0012n, 0x1000_0401n)).toBe('0005000000000012 0000000010000001');
    expect(canonical(0x0000_0000_0000_0013n, 0x1000_0c01n)).toBe('0000000000000013 0000000010000001');
  });
  it('gap 14: NUM, SCALE and TTL without TG are dropped', () => {
    expect(canonical(0x0005_0000_0010_3012n, 0x1000_0301n)).toBe('0005000000000012 0000000010000001');
  });
  it('gap 14: without RIL a range field means nothing', () => {
    expect(canonical(0x0005_0000_0000_3012n, 0x1000_0401n, { ril: false })).toBe(
      '0005000000000012 0000000010000001',
    );
  });
  it('a range stays a range', () => {
    expect(canonical(0x0005_0000_0000_3012n, 0x1000_0401n)).toBe('0005000000003012 0000000010000401');
    expect(canonical(0x0005_0000_0000_0012n, 0x1000_0701n)).toBe('0005000000000012 0000000010000701');
  });
  it('gap 14: SCALE has its sixth bit only with DS', () => {
    expect(canonical(0x0000_0000_0230_0012n, 0x1000_0400n, { ds: false })).toBe(
      '0000000000300012 0000000010000400',
    );
    expect(canonical(0x0000_0000_0230_0012n, 0x1000_0400n)).toBe('0000000002300012 0000000010000400');
  });
  it('16 KiB pages have no level 1 blocks without DS: the hint is dropped, and the range kept', () => {
    expect(canonical(0x0000_0000_0000_1012n, 0x1000_0900n, { ds: false })).toBe(
      '0000000000001012 0000000010000800',
    );
    expect(canonical(0x0000_0000_0000_0012n, 0x1000_0900n, { ds: false })).toBe(
      '0000000000000012 0000000010000000',
    );
    expect(canonical(0x0000_0000_0000_1012n, 0x1000_0900n)).toBe('0000000000001012 0000000010000900');
  });
  it('gap 14: the high byte of an ASID goes only where ASIDs have 16 bits', () => {
    expect(canonical(0xab05_0000_0000_0011n, 0n, { asid16: false })).toBe(
      '0005000000000011 0000000000000000',
    );
    expect(canonical(0xab05_0000_0000_0011n, 0n)).toBe('ab05000000000011 0000000000000000');
  });
  it('gap 14: CFGI_CD has no SSV, and no SubstreamID without substreams', () => {
    expect(canonical(0x0000_1234_0000_1805n, 1n)).toBe('0000123400001005 0000000000000001');
    expect(canonical(0x0000_1234_0000_1805n, 1n, { substreams: false })).toBe(
      '0000123400000005 0000000000000001',
    );
  });
  it('gap 14: ATC_INV keeps SubstreamID and Global only with SSV', () => {
    expect(canonical(0x0000_0008_0000_1240n, 0x34n)).toBe('0000000800000040 0000000000000034');
    expect(canonical(0x0000_0008_0000_1a40n, 0x34n)).toBe('0000000800001a40 0000000000000034');
    expect(canonical(0x0000_0008_0000_1a40n, 0x34n, { substreams: false })).toBe(
      '0000000800000040 0000000000000034',
    );
  });
  it('ATC_INV of more than everything is everything', () => {
    expect(canonical(0x0000_0008_0000_0040n, 0x3fn)).toBe('0000000800000040 0000000000000034');
  });
  it('ATC_INV without ATS is dropped', () => {
    expect(canonical(0x0000_0008_0000_0040n, 0x34n, { ats: false })).toBeUndefined();
  });
  it('the VMID is left to the kernel', () => {
    expect(canonical(0x0000_beef_0000_0010n, 0n)).toBe('0000000000000010 0000000000000000');
    expect(canonical(0x0005_beef_0000_0012n, 0x1000n)).toBe('0005000000000012 0000000000001000');
  });
});
