import { readFileSync } from 'node:fs';
import { afterEach, describe, expect, it } from 'vitest';
import { F_ADD_SEALS, F_SEAL_SHRINK } from '../../src/sys/linux.ts';
import { Mapping } from '../../src/sys/mapping.ts';
import { NO_SYSCALLS, SYS, onLinux } from '../support/syscalls.ts';

const PAGE = 0x1_0000; // as large as arm64's largest
const open: number[] = [];
afterEach(() => {
  for (const fd of open.splice(0)) SYS.close(fd);
});

function memfd(size: number, name = 'vsmmu-mapping'): number {
  const fd = SYS.memfd_create(name);
  open.push(fd);
  expect(SYS.ftruncate(fd, size)).toBe(0);
  return fd;
}

function mapped(fd: number, offset: number, size: number, writable = true): Mapping {
  const mapping = Mapping.ofFile(SYS, { fd, offset, size, writable });
  if (typeof mapping === 'number') throw new Error(`errno ${-mapping}`);
  return mapping;
}

const mapsOf = (name: string): number =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(`memfd:${name}`)).length;

describe.skipIf(NO_SYSCALLS !== '')(onLinux('a mapping is refused'), () => {
  it.each([
    ['a range that ends beyond the file', 0, 2 * PAGE + 1],
    ['a range that begins beyond the file', 3 * PAGE, PAGE],
    ['an empty range', 0, 0],
    ['a negative size', 0, -PAGE],
    ['a negative offset', -PAGE, PAGE],
    ['an offset inside a page', 1, 4096],
    ['an offset that is not an exact number', 2 ** 53, PAGE],
    ['a size that is not a number', 0, Number.NaN],
  ])('for %s', (_, offset, size) => {
    expect(Mapping.ofFile(SYS, { fd: memfd(2 * PAGE), offset, size, writable: true })).toBe(-22);
  });

  it('for a device, an eventfd, and a descriptor that is not open', () => {
    const zero = SYS.open('/dev/zero', 2);
    const eventfd = SYS.eventfd();
    open.push(zero, eventfd);
    for (const fd of [zero, eventfd])
      expect(Mapping.ofFile(SYS, { fd, offset: 0, size: PAGE, writable: true })).toBe(-22);
    expect(Mapping.ofFile(SYS, { fd: 12345, offset: 0, size: PAGE, writable: true })).toBe(-9);
  });
});

describe.skipIf(NO_SYSCALLS !== '')(onLinux('a mapping'), () => {
  it('shows the file and writes to it, at its offset', () => {
    const fd = memfd(2 * PAGE);
    SYS.pwrite(fd, new Uint8Array([1, 2, 3]), PAGE + 8);
    const mapping = mapped(fd, PAGE, PAGE);
    const view = mapping.view(0, PAGE);
    expect([...view.subarray(8, 11)]).toEqual([1, 2, 3]);
    view[9] = 0x55;
    const read = new Uint8Array(1);
    SYS.pread(fd, read, PAGE + 9);
    expect(read[0]).toBe(0x55);
    expect(mapping.view(8, 8)[1]).toBe(0x55);
    mapping.release();
  });

  it('of a peer that may only read keeps stores to itself', () => {
    const fd = memfd(PAGE);
    const mapping = mapped(fd, 0, PAGE, false);
    mapping.view(0, PAGE)[0] = 9;
    const read = new Uint8Array(1);
    SYS.pread(fd, read, 0);
    expect(read[0]).toBe(0);
    mapping.release();
  });

  it('tells whether the peer can still shrink the file', () => {
    const open = mapped(memfd(PAGE), 0, PAGE);
    const fd = memfd(PAGE);
    SYS.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
    const sealed = mapped(fd, 0, PAGE);
    expect([open.sealed, sealed.sealed]).toEqual([false, true]);
    open.release();
    sealed.release();
  });

  it('gives no view outside itself, nor after its release', () => {
    const mapping = mapped(memfd(2 * PAGE), 0, 2 * PAGE);
    for (const [offset, size] of [
      [0, 2 * PAGE + 1],
      [2 * PAGE, 1],
      [-1, 1],
      [0, -1],
      [0, Number.NaN],
    ])
      expect(() => mapping.view(offset, size)).toThrow(RangeError);
    mapping.release();
    expect(() => mapping.view(0, 1)).toThrow('released');
  });

  it('gives views of at most 4 GiB, which is what Node 20 survives', () => {
    const mapping = mapped(memfd(0x1_4000_0000), 0, 0x1_4000_0000);
    expect(() => mapping.view(0, 0x1_0000_0001)).toThrow(RangeError);
    expect(mapping.view(0x4000_0000, 0x1_0000_0000)).toHaveLength(0x1_0000_0000);
    mapping.release();
  });

  it('that is released lets go of the file, and leaves zeros under its views', () => {
    const fd = memfd(PAGE, 'vsmmu-released');
    const mapping = mapped(fd, 0, PAGE);
    const view = mapping.view(0, PAGE);
    view.fill(0xaa);
    expect(mapsOf('vsmmu-released')).toBe(1);
    mapping.release();
    mapping.release();
    expect(mapsOf('vsmmu-released')).toBe(0);
    expect(view[100]).toBe(0);
    view[100] = 1;
    const read = new Uint8Array(1);
    SYS.pread(fd, read, 100);
    expect(read[0]).toBe(0xaa);
  });

  it('of which no view was taken gives its addresses back at once', () => {
    const mapping = mapped(memfd(PAGE, 'vsmmu-unviewed'), 0, PAGE);
    expect(mapsOf('vsmmu-unviewed')).toBe(1);
    mapping.release();
    expect(mapsOf('vsmmu-unviewed')).toBe(0);
  });
});
