import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE } from '../../src/smmu/identification.ts';
import { Device, NOWHERE, RAM, record } from '../support/smmu-device.ts';

const MSI = identify(QEMU_LIKE, { MSI: 1 });

/** Both errors that a guest of few features can make. */
function broken(ids = QEMU_LIKE): Device {
  const device = new Device(ids);
  device.write64(0x90, 0, NOWHERE | 4);
  device.write64(0xa0, 0, NOWHERE | 4);
  device.write(0x20, 0xc);
  return device;
}

describe('GERROR', () => {
  it('has each error active until its own bit is acknowledged', () => {
    const device = broken();
    device.write(0x98, 1);
    device.smmu.recordEvent(record(1));
    expect([device.read(0x60), device.read(0x64)]).toEqual([5, 0]);
    // The event queue is acknowledged alone; the command queue stays stopped.
    device.write(0x64, 4);
    expect(device.errors).toBe(1);
    // Acknowledging CMDQ_ERR fetches again at once, which aborts again: the bit toggles back.
    device.write(0x64, 5);
    expect([device.read(0x60), device.read(0x64)]).toEqual([4, 5]);
  });

  it('is read-only, and GERRORN reads back what was written to its implemented bits', () => {
    const device = broken();
    device.write(0x60, 0xffff_ffff);
    expect(device.read(0x60)).toBe(0);
    device.write(0x64, 0xffff_ffff);
    // Without MSI and PRI: CMDQ_ERR, EVENTQ_ABT_ERR, SFM_ERR.
    expect(device.read(0x64)).toBe(0x105);
  });

  it('signals each activation once, and only while enabled', () => {
    const device = broken();
    device.write(0x98, 1);
    expect(device.interrupts).toEqual([]);
    device.write(0x50, 1);
    expect(device.interrupts).toEqual([]);
    device.smmu.recordEvent(record(1));
    device.smmu.recordEvent(record(2));
    expect(device.interrupts).toEqual(['gerror']);
    device.write(0x64, 4);
    device.smmu.recordEvent(record(3));
    expect(device.interrupts).toEqual(['gerror', 'gerror']);
  });

  it('is there, with CMDQ_CONS.ERR, before its interrupt', () => {
    const device = broken();
    device.write(0x50, 1);
    const seen: number[] = [];
    device.onInterrupt = () => void seen.push(device.errors, device.cerror);
    device.write(0x98, 1);
    expect(seen).toEqual([1, 2]);
  });

  it('sends its MSI', () => {
    const device = broken(MSI);
    device.write64(0x68, 0, RAM + 8);
    device.write(0x70, 77);
    device.write(0x50, 1);
    device.write(0x98, 1);
    expect(device.interrupts).toEqual(['gerror', `msi 0:${(RAM + 8).toString(16)} 4d`]);
  });

  it('shows that its own MSI aborted, without a second interrupt', () => {
    const device = broken(MSI);
    device.write64(0x68, 0, RAM + 8);
    device.write(0x50, 1);
    device.msiAborts = true;
    device.write(0x98, 1);
    expect(device.errors).toBe(0x81);
    expect(device.interrupts).toEqual(['gerror']);
  });

  it('ends there when the MSIs of the event queue and of GERROR both abort', () => {
    const device = new Device(MSI).start();
    device.write64(0x68, 0, RAM + 8);
    device.write64(0xb0, 0, RAM + 8);
    device.write(0x50, 5);
    device.msiAborts = true;
    device.smmu.recordEvent(record(1));
    expect(device.errors).toBe(0xa0);
    expect(device.interrupts).toEqual(['eventq', 'gerror']);
  });
});
