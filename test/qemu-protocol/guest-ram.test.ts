import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { MEM_ABORT, MEM_OK, TearFreeMemory } from '../../src/memory/memory.ts';
import { GuestRam } from '../../src/qemu/guest-ram.ts';
import type { DmaRange } from '../../src/qemu/vfio-user/device.ts';
import { F_ADD_SEALS, F_SEAL_SHRINK } from '../../src/sys/linux.ts';
import { NO_SYSCALLS, onLinux, SYS } from '../support/syscalls.ts';

const MiB = 0x10_0000;
const GiB = 0x4000_0000;
const RAM = 0x4000_0000;

describe.skipIf(NO_SYSCALLS !== '')(onLinux('guest RAM'), () => {
  const open: number[] = [];
  afterEach(() => {
    for (const fd of open.splice(0)) SYS.close(fd);
  });

  const memfd = (size: number, sealed = true, name = 'ram'): number => {
    const fd = SYS.memfd_create(name);
    open.push(fd);
    SYS.ftruncate(fd, size);
    if (sealed) SYS.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
    return fd;
  };

  const range = (
    address: number,
    size: number,
    fd: number | undefined,
    more: Partial<DmaRange> = {},
  ): DmaRange => ({
    address,
    size,
    fd,
    offset: 0,
    readable: true,
    writable: true,
    ...more,
  });

  const guestRam = (observer = {}): { ram: GuestRam; memory: TearFreeMemory; warnings: string[] } => {
    const memory = new TearFreeMemory();
    const warnings: string[] = [];
    return { ram: new GuestRam(SYS, memory, (text) => warnings.push(text), observer), memory, warnings };
  };

  it('is not what lies beyond the file', () => {
    const { ram, memory } = guestRam();
    expect(ram.map(range(RAM, 2 * MiB, memfd(MiB)))).toBe(22);
    expect(ram.map(range(RAM, MiB, memfd(MiB), { offset: 4096 }))).toBe(22);
    expect(ram.map(range(2 ** 48, MiB, memfd(MiB)))).toBe(27);
    expect(memory.regions()).toEqual([]);
    expect(ram.size).toBe(0);
  });

  it('does not replace what is in memory already', () => {
    const { ram, memory } = guestRam();
    memory.addRam(0, RAM + MiB, new Uint8Array(4096));
    expect(ram.map(range(RAM, 4 * MiB, memfd(4 * MiB)))).toBe(17);
    expect(memory.regions()).toHaveLength(1);
  });

  it('that the VMM does not share is not there, and one sentence says what to do', () => {
    const { ram, memory, warnings } = guestRam();
    expect(ram.map(range(RAM, 512 * MiB, undefined))).toBe(0);
    expect(ram.map(range(0, MiB, undefined))).toBe(0);
    expect(memory.load32(0, RAM)).toBe(MEM_ABORT);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain('does not share 512 MiB of guest memory at 0x40000000');
    expect(warnings[0]).toContain('share=on');
    ram.unmap(RAM);
  });

  it('is the memory of the VMM, in both directions', () => {
    const { ram, memory, warnings } = guestRam();
    const fd = memfd(2 * MiB);
    expect(ram.map(range(RAM, MiB, fd, { offset: MiB }))).toBe(0);
    SYS.pwrite(fd, Uint8Array.of(0x78, 0x56, 0x34, 0x12), MiB + 8);
    expect(memory.load32(0, RAM + 8)).toBe(MEM_OK);
    expect(memory.lo).toBe(0x1234_5678);
    memory.store64(0, RAM + 16, 0xaabb_ccdd, 0x1122_3344);
    const into = new Uint8Array(8);
    SYS.pread(fd, into, MiB + 16);
    expect([...into]).toEqual([0x44, 0x33, 0x22, 0x11, 0xdd, 0xcc, 0xbb, 0xaa]);
    expect(warnings).toEqual([]);
    ram.unmapAll();
    expect(ram.size).toBe(0);
  });

  it('warns once of a file that could shrink under us', () => {
    const { ram, warnings } = guestRam();
    ram.map(range(RAM, MiB, memfd(MiB, false)));
    ram.map(range(RAM + MiB, MiB, memfd(MiB, false)));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain('can be made smaller');
    ram.unmapAll();
  });

  it('that may only be read is not changed for the VMM by what the SMMU stores', () => {
    const { ram, memory } = guestRam();
    const fd = memfd(MiB);
    ram.map(range(RAM, MiB, fd, { writable: false }));
    memory.store32(0, RAM, 7);
    const into = new Uint8Array(4);
    SYS.pread(fd, into, 0);
    expect([...into]).toEqual([0, 0, 0, 0]);
    ram.unmapAll();
  });

  it('larger than 4 GiB lies in one bank after the other', () => {
    const parts: [number, number][] = [];
    const { ram, memory } = guestRam({
      added: (address: number, bytes: Uint8Array) => {
        parts.push([address, bytes.length]);
        return 0;
      },
    });
    const fd = memfd(9 * GiB);
    expect(ram.map(range(RAM, 9 * GiB, fd))).toBe(0);
    expect(parts).toEqual([
      [GiB, 3 * GiB],
      [4 * GiB, 4 * GiB],
      [8 * GiB, 2 * GiB],
    ]);
    SYS.pwrite(fd, Uint8Array.of(9), 8 * GiB);
    expect(memory.load32(2, GiB)).toBe(MEM_OK);
    expect(memory.lo).toBe(9);
    ram.unmap(RAM);
    expect(memory.regions()).toEqual([]);
  });

  it('is told to whoever observes it, before it goes', () => {
    const log: string[] = [];
    const memory = new TearFreeMemory();
    const observer = {
      added: (address: number, bytes: Uint8Array) => {
        log.push(`added ${address} ${bytes.length}`);
        return 0;
      },
      removing: (address: number, size: number) => {
        log.push(
          `removing ${address} ${size}, ${memory.load32(0, address) === MEM_OK ? 'still' : 'not'} there`,
        );
      },
    };
    const ram = new GuestRam(SYS, memory, () => {}, observer);
    ram.map(range(RAM, MiB, memfd(MiB)));
    ram.unmap(RAM);
    ram.unmap(RAM);
    expect(log).toEqual([`added ${RAM} ${MiB}`, `removing ${RAM} ${MiB}, still there`]);
    expect(memory.load32(0, RAM)).toBe(MEM_ABORT);
  });

  it('that an observer refuses is not there, nor what it took before', () => {
    const removed: number[] = [];
    const { ram, memory } = guestRam({
      added: (address: number) => (address === 4 * GiB ? 12 : 0),
      removing: (address: number) => removed.push(address),
    });
    expect(ram.map(range(3 * GiB, 2 * GiB, memfd(2 * GiB, true, 'refused')))).toBe(12);
    expect(removed).toEqual([3 * GiB]);
    expect(readFileSync('/proc/self/maps', 'utf8')).not.toContain('memfd:refused');
    expect(memory.regions()).toEqual([]);
    expect(ram.size).toBe(0);
  });
});
