import { describe, expect, it } from 'vitest';
import { ConfigBytes } from '../../src/qemu/config-bytes.ts';
import { addExpressCapability } from '../../src/qemu/express-capability.ts';
import { MsiCapability, msiForm, msiSize } from '../../src/qemu/msi-capability.ts';
import { PciConfig } from '../../src/qemu/pci-config.ts';
import { pack } from '../support/vfio-user.ts';

const IDENTITY = {
  vendor: 0x1234,
  device: 0x5678,
  classCode: 0x08_06_00,
  revision: 3,
  interruptPin: 1,
  bars: [
    { index: 0, size: 0x2_0000, is64: false, prefetchable: false },
    { index: 2, size: 0x2_0000_0000, is64: true, prefetchable: true },
  ],
} as const;

const read = (config: ConfigBytes, offset: number, size: number): number => {
  const into = new Uint8Array(size);
  config.read(offset, into);
  return Number(new DataView(Uint8Array.of(...into, 0, 0, 0, 0, 0, 0, 0).buffer).getBigUint64(0, true));
};
const write = (config: ConfigBytes, offset: number, size: number, value: number | bigint): void =>
  config.write(offset, pack([size, value]));

describe('a configuration space', () => {
  it.each([
    [6, 0x1000, false],
    [-1, 0x1000, false],
    [5, 0x1000, true],
    [0, 8, false],
    [0, 0x1800, false],
    [0, 0, false],
  ])('has no BAR %i of %i bytes (64 bit: %s)', (index, size, is64) => {
    const bars = [{ index, size, is64, prefetchable: false }];
    expect(() => new PciConfig({ ...IDENTITY, bars })).toThrow(RangeError);
  });

  it('keeps its identity, whatever is written', () => {
    const config = new PciConfig(IDENTITY);
    for (let offset = 0; offset < 0x1000; offset += 4) write(config, offset, 4, 0xffff_ffff);
    expect(read(config, 0x00, 4)).toBe(0x5678_1234);
    expect(read(config, 0x08, 4)).toBe(0x0806_0003);
    expect(read(config, 0x0e, 1)).toBe(0);
    expect(read(config, 0x2c, 4)).toBe(0x5678_1234);
    expect(read(config, 0x3d, 1)).toBe(1);
    for (let offset = 0x40; offset < 0x1000; offset += 4) expect(read(config, offset, 4)).toBe(0);
  });

  it('has no ROM', () => {
    const config = new PciConfig(IDENTITY);
    write(config, 0x30, 4, 0xffff_ffff);
    expect(read(config, 0x30, 4)).toBe(0);
  });

  it('tells the size of a BAR to software that writes ones', () => {
    const config = new PciConfig(IDENTITY);
    for (let bar = 0; bar < 6; bar++) write(config, 0x10 + 4 * bar, 4, 0xffff_ffff);
    const bars = [0, 1, 2, 3, 4, 5].map((bar) => read(config, 0x10 + 4 * bar, 4));
    expect(bars).toEqual([0xfffe_0000, 0, 0x0000_000c, 0xffff_fffe, 0, 0]);
    write(config, 0x10, 4, 0x3e00_1234);
    expect(read(config, 0x10, 4)).toBe(0x3e00_0000);
  });

  it('has the bits of Command that it needs, and forgets them at a reset', () => {
    const config = new PciConfig(IDENTITY);
    write(config, 0x04, 2, 0xffff);
    expect(read(config, 0x04, 2)).toBe(0x0546);
    write(config, 0x3c, 1, 0x55);
    config.reset();
    expect(read(config, 0x04, 2)).toBe(0);
    expect(read(config, 0x3c, 2)).toBe(0x0100);
    expect(read(config, 0x10, 4)).toBe(0);
  });

  it('is read and written at any offset and size, also past its end', () => {
    const config = new PciConfig(IDENTITY);
    expect(read(config, 0x01, 3)).toBe(0x56_7812);
    const into = new Uint8Array(8).fill(0xee);
    config.read(0xffc, into);
    expect([...into]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    config.write(0xffe, new Uint8Array(100));
    config.write(0x3b, Uint8Array.of(1, 2, 3));
    expect(read(config, 0x3b, 3)).toBe(0x01_0200);
  });

  it('links its capabilities, and says so in Status', () => {
    const config = new PciConfig(IDENTITY);
    expect(read(config, 0x06, 2)).toBe(0);
    const express = addExpressCapability(config);
    const other = config.addCapability(0x09, 5);
    expect([express, other]).toEqual([0x40, 0x7c]);
    expect(read(config, 0x06, 2)).toBe(0x10);
    expect(read(config, 0x34, 1)).toBe(0x40);
    expect(read(config, 0x40, 4)).toBe(0x0002_7c10);
    expect(read(config, 0x7c, 2)).toBe(0x0009);
    expect(() => config.addCapability(0x09, 0x80)).toThrow(RangeError);
  });
});

describe('an MSI capability', () => {
  const capability = (
    form = { vectors: 4, is64: true, maskable: true },
  ): { config: ConfigBytes; msi: MsiCapability } => {
    const config = new ConfigBytes(0x100);
    return { config, msi: new MsiCapability(config, 0x50, form) };
  };

  it.each([
    [0x0080, { vectors: 1, is64: true, maskable: false }, 14],
    [0x018a, { vectors: 32, is64: true, maskable: true }, 24],
    [0x0004, { vectors: 4, is64: false, maskable: false }, 10],
    [0x010e, { vectors: 32, is64: false, maskable: true }, 20],
  ])('with Message Control %i has the form that this says', (control, form, size) => {
    expect(msiForm(control)).toEqual(form);
    expect(msiSize(form)).toBe(size);
  });

  it('is laid out as the specification has it, with and without 64 bits', () => {
    const wide = capability();
    for (let offset = 0; offset < 24; offset += 4) write(wide.config, 0x50 + offset, 4, 0xffff_ffff);
    expect([0, 4, 8, 12, 16, 20].map((at) => read(wide.config, 0x50 + at, 4))).toEqual([
      0x01f5_0005, 0xffff_fffc, 0xffff_ffff, 0x0000_ffff, 0x0000_000f, 0,
    ]);
    const narrow = capability({ vectors: 1, is64: false, maskable: false });
    for (let offset = 0; offset < 24; offset += 4) write(narrow.config, 0x50 + offset, 4, 0xffff_ffff);
    expect([0, 4, 8, 12, 16, 20].map((at) => read(narrow.config, 0x50 + at, 4))).toEqual([
      0x0071_0005, 0xffff_fffc, 0x0000_ffff, 0, 0, 0,
    ]);
    expect(narrow.msi.addressHi).toBe(0);
  });

  it('never gives more vectors than it has', () => {
    const { config, msi } = capability();
    expect([msi.enabled, msi.vectors]).toEqual([false, 1]);
    for (const [log2, vectors] of [
      [0, 1],
      [1, 2],
      [2, 4],
      [3, 4],
      [7, 4],
    ] as const) {
      write(config, 0x52, 2, 1 | (log2 << 4));
      expect([msi.enabled, msi.vectors]).toEqual([true, vectors]);
    }
  });

  it('puts the vector into the low bits of the data', () => {
    const { config, msi } = capability();
    write(config, 0x5c, 2, 0xabcd);
    write(config, 0x52, 2, 0x21);
    expect([0, 1, 3, 5].map((vector) => msi.data(vector))).toEqual([0xabcc, 0xabcd, 0xabcf, 0xabcd]);
    write(config, 0x52, 2, 0x01);
    expect(msi.data(3)).toBe(0xabcd);
  });

  it('shows what is pending while masked, and gives it back once', () => {
    const { config, msi } = capability();
    write(config, 0x60, 4, 0b0110);
    expect([0, 1, 2, 3].map((vector) => msi.masked(vector))).toEqual([false, true, true, false]);
    msi.setPending(1);
    msi.setPending(2);
    expect(read(config, 0x64, 4)).toBe(0b0110);
    expect(msi.takeUnmasked()).toEqual([]);
    write(config, 0x60, 4, 0b0010);
    expect(msi.takeUnmasked()).toEqual([2]);
    expect(msi.takeUnmasked()).toEqual([]);
    expect(read(config, 0x64, 4)).toBe(0b0010);
    msi.clearPending();
    write(config, 0x60, 4, 0);
    expect(msi.takeUnmasked()).toEqual([]);
  });

  it('with 32 vectors uses every bit', () => {
    const { config, msi } = capability({ vectors: 32, is64: true, maskable: true });
    write(config, 0x60, 4, 0xffff_ffff);
    msi.setPending(31);
    expect(read(config, 0x64, 4)).toBe(0x8000_0000);
    write(config, 0x60, 4, 0);
    expect(msi.takeUnmasked()).toEqual([31]);
  });
});
