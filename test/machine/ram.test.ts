import { describe, expect, it } from 'vitest';
import { HostError } from '../../src/iommufd/errors.ts';
import { MEM_OK } from '../../src/memory/memory.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { BenchHost, BenchMachine } from '../support/bench-machine.ts';

const LATER = 0x1_0000_0000;

describe('guest RAM that the host cannot map', () => {
  it('is not there for the SMMU either, and may be added when the host has memory again', () => {
    const machine = new BenchMachine(new BenchHost());
    const { memory } = machine.machine;
    const ram = new Uint8Array(0x1000);
    machine.plug();
    machine.host.sim.faults.add({ ioctl: 'IOMMU_IOAS_MAP', errno: 'ENOMEM' });
    expect(() => machine.machine.addRam(LATER, ram)).toThrow(HostError);
    // Otherwise the guest's queues and tables could be where no device can follow.
    expect(memory.load32(1, 0)).not.toBe(MEM_OK);
    expect(machine.dma(BigInt(LATER))).toBe(OUTCOME.Abort);
    machine.machine.addRam(LATER, ram);
    expect(memory.load32(1, 0)).toBe(MEM_OK);
    expect(machine.dma(BigInt(LATER))).toBe(OUTCOME.Ok);
    machine.close();
  });
});
