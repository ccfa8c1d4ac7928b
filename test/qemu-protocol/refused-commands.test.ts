import { describe, expect, it } from 'vitest';
import {
  Bench,
  dmaMap,
  dmaUnmap,
  getInfo,
  getIrqInfo,
  getRegionInfo,
  message,
  pack,
  RecordingDevice,
  regionRead,
  regionWrite,
  setIrqs,
} from '../support/vfio-user.ts';

const MiB = 0x10_0000;
const RAM = 0x4000_0000;
const EINVAL = 22;
const REPLY = 1;
const REPLY_ERROR = 0x21;

describe('a command is refused', () => {
  it.each([
    ['that nobody knows', message(77), 38, 'header: command is command 77, expected one that clients send'],
    ['that only servers send', message(12, pack([8, 0], [8, 0])), 38, 'header: command is DMA_WRITE'],
    ['with unknown flags', message(13, undefined, { flags: 0x40 }), EINVAL, 'DEVICE_RESET: flags is 0x40'],
    ['with the error flag', message(13, undefined, { flags: 0x20 }), EINVAL, 'DEVICE_RESET: flags is 0x20'],
    ['that is too short', message(4, pack([4, 16])), EINVAL, 'DEVICE_GET_INFO: size is 20, expected 32'],
    ['that is too long', message(13, pack([4, 0])), EINVAL, 'DEVICE_RESET: size is 20, expected 16'],
    [
      'whose head is too short',
      message(8, pack([4, 20])),
      EINVAL,
      'SET_IRQS: size is 20, expected at least 36',
    ],
    ['with a short argsz', getInfo(15), EINVAL, 'DEVICE_GET_INFO: argsz is 15, expected at least 16'],
    [
      'for a region that is not',
      getRegionInfo(9),
      EINVAL,
      'DEVICE_GET_REGION_INFO: index is 9, expected below 9',
    ],
    [
      'for an interrupt that is not',
      getIrqInfo(5),
      EINVAL,
      'DEVICE_GET_IRQ_INFO: index is 5, expected below 5',
    ],
    ['for descriptors of a region', message(6, pack([4, 16], [4, 0], [4, 0], [4, 0])), 95, undefined],

    ['to map nothing', dmaMap(RAM, 0), EINVAL, 'DMA_MAP: size is 0x0, expected above 0'],
    [
      'to map at an odd address',
      dmaMap(RAM + 1, MiB),
      EINVAL,
      'address is 0x40000001, expected a multiple of 0x1000',
    ],
    ['to map an odd size', dmaMap(RAM, 4097), EINVAL, 'size is 0x1001, expected a multiple of 0x1000'],
    ['to map at an odd offset', dmaMap(RAM, MiB, { offset: 512 }), EINVAL, 'offset is 0x200'],
    [
      'to map beyond 52 bits',
      dmaMap(2n ** 52n - 4096n, 8192),
      EINVAL,
      'size is 0x2000, expected above 0, with an end',
    ],
    [
      'to map around the end',
      dmaMap(2n ** 64n - 4096n, 8192),
      EINVAL,
      'size is 0x2000, expected above 0, with an end',
    ],
    ['to map everything', dmaMap(0, 2n ** 64n - 4096n), EINVAL, 'DMA_MAP: size'],
    ['to map at a huge offset', dmaMap(RAM, MiB, { offset: 2n ** 63n }), EINVAL, 'DMA_MAP: offset'],
    [
      'to map for nothing',
      dmaMap(RAM, MiB, { flags: 0 }),
      EINVAL,
      'flags is 0x0, expected 1 (readable) or 3',
    ],
    ['to map with other flags', dmaMap(RAM, MiB, { flags: 7 }), EINVAL, 'flags is 0x7'],
    [
      'to map with a short argsz',
      dmaMap(RAM, MiB, { argsz: 24 }),
      EINVAL,
      'argsz is 24, expected at least 32',
    ],
    [
      'to unmap what is not mapped',
      dmaUnmap(RAM, MiB),
      2,
      '0x40000000 and 0x100000, expected those of a window',
    ],
    ['to unmap with flags', dmaUnmap(RAM, MiB, { flags: 1 }), EINVAL, 'DMA_UNMAP: flags is 0x1'],
    ['to unmap all of a range', dmaUnmap(RAM, MiB, { flags: 2 }), EINVAL, 'DMA_UNMAP: flags is 0x2'],

    ['to read nothing', regionRead(0, 0, 0), EINVAL, 'REGION_READ: count is 0, expected 1..65536'],
    ['to read too much', regionRead(0, 0, 65537), EINVAL, 'REGION_READ: count is 65537'],
    [
      'to read past the end',
      regionRead(0, 0xffd, 4),
      EINVAL,
      'offset + count is 0x1001, expected at most 0x1000',
    ],
    ['to read far past the end', regionRead(0, 2n ** 64n - 4n, 4), EINVAL, 'REGION_READ: offset + count'],
    [
      'to read a region that is not',
      regionRead(9, 0, 4),
      EINVAL,
      'REGION_READ: region is 9, expected below 9',
    ],
    ['to read the last region number', regionRead(0xffff_ffff, 0, 4), EINVAL, 'region is 4294967295'],
    ['to read an absent region', regionRead(3, 0, 4), EINVAL, 'region is 3, expected one that can be read'],
    ['to write the ROM', regionWrite(6, 0, [1]), EINVAL, 'region is 6, expected one that can be written'],
    ['to write past the end', regionWrite(7, 0xff, [1, 2]), EINVAL, 'REGION_WRITE: offset + count is 0x101'],
    [
      'to write more than it brings',
      regionWrite(0, 0, [1, 2], { count: 4 }),
      EINVAL,
      'count is 4, expected 2',
    ],
    [
      'to write less than it brings',
      regionWrite(0, 0, [1, 2], { count: 1 }),
      EINVAL,
      'count is 1, expected 2',
    ],
    ['to write nothing', regionWrite(0, 0, []), EINVAL, 'REGION_WRITE: count is 0'],

    ['with two kinds of data', setIrqs(0x23, 1, 0, 1), EINVAL, 'SET_IRQS: flags is 0x23'],
    ['with two actions', setIrqs(0x31, 1, 0, 1), EINVAL, 'SET_IRQS: flags is 0x31'],
    ['without an action', setIrqs(0x01, 1, 0, 1), EINVAL, 'SET_IRQS: flags is 0x1'],
    ['with an unknown flag', setIrqs(0x61, 1, 0, 1), EINVAL, 'SET_IRQS: flags is 0x61'],
    ['for an unknown interrupt', setIrqs(0x21, 5, 0, 1), EINVAL, 'SET_IRQS: index is 5, expected below 5'],
    ['for vectors past the last', setIrqs(0x21, 1, 3, 2), EINVAL, 'start + count is 5, expected at most 4'],
    ['for vectors around the end', setIrqs(0x21, 1, 0xffff_ffff, 2), EINVAL, 'start + count is 4294967297'],
    ['with too few booleans', setIrqs(0x22, 1, 0, 2, [1]), EINVAL, 'SET_IRQS: size is 37, expected 38'],
    [
      'with bytes that it does not need',
      setIrqs(0x21, 1, 0, 1, [1]),
      EINVAL,
      'SET_IRQS: size is 37, expected 36',
    ],
    ['with count 0 and a start', setIrqs(0x21, 1, 1, 0), EINVAL, 'SET_IRQS: count is 0'],
    ['to mask an MSI', setIrqs(0x09, 1, 0, 1), 95, 'flags is 0x9, expected no mask or unmask'],

    [
      'of more writes than it brings',
      message(15, pack([8, 2], [8, 0], [4, 0], [4, 4], [8, 0])),
      EINVAL,
      'wr_cnt is 2',
    ],
    ['of endless writes', message(15, pack([8, 2n ** 63n])), EINVAL, 'REGION_WRITE_MULTI: wr_cnt'],
    [
      'of a write of 9 bytes',
      message(15, pack([8, 1], [8, 0], [4, 0], [4, 9], [8, 0])),
      EINVAL,
      'count is 9',
    ],
  ])('%s', (_, bytes, errno, text) => {
    const bench = Bench.ready();
    const reply = bench.ask(bytes);
    expect([reply.flags, reply.error, reply.payload.length]).toEqual([REPLY_ERROR, errno, 0]);
    expect(bench.device.calls).toEqual([]);
    if (text !== undefined) expect(bench.texts.join()).toContain(text);
    expect(bench.ask(getInfo()).flags).toBe(REPLY);
  });

  it('with descriptors that it does not take, and they are closed', () => {
    const bench = Bench.ready();
    expect(bench.ask(regionRead(0, 0, 4), bench.fds(1)).error).toBe(EINVAL);
    expect(bench.ask(dmaMap(RAM, MiB), bench.fds(2)).error).toBe(EINVAL);
    expect(bench.ask(setIrqs(0x21, 1, 0, 1), bench.fds(1)).error).toBe(EINVAL);
    expect(bench.ask(setIrqs(0x24, 1, 0, 2), bench.fds(1)).error).toBe(EINVAL);
    expect(bench.ask(setIrqs(0x14, 0, 0, 1), bench.fds(1)).error).toBe(95);
    expect(bench.openFds.size).toBe(0);
  });

  it('to map over what is mapped, and that stays', () => {
    const bench = Bench.ready();
    bench.ask(dmaMap(RAM, MiB));
    for (const [address, size] of [
      [RAM, MiB],
      [RAM - 4096, 8192],
      [RAM + MiB - 4096, 8192],
      [RAM - 4096, 2 * MiB],
      [RAM + 4096, 4096],
    ])
      expect(bench.ask(dmaMap(address, size)).error).toBe(17);
    expect(bench.ask(dmaMap(RAM + MiB, MiB)).error).toBe(0);
    expect(bench.ask(dmaUnmap(RAM, MiB)).error).toBe(0);
  });

  it('to unmap a part of a window', () => {
    const bench = Bench.ready();
    bench.ask(dmaMap(RAM, MiB));
    expect(bench.ask(dmaUnmap(RAM, 4096)).error).toBe(2);
    expect(bench.ask(dmaUnmap(RAM, MiB)).error).toBe(0);
    expect(bench.ask(dmaUnmap(RAM, MiB)).error).toBe(2);
  });

  it('to map one window more than agreed', () => {
    const bench = Bench.ready();
    for (let i = 0; i < 1024; i++) expect(bench.ask(dmaMap(RAM + i * 4096, 4096)).error).toBe(0);
    expect(bench.ask(dmaMap(0, 4096)).error).toBe(28);
  });

  it('by the device, with its errno', () => {
    const device = new RecordingDevice();
    const bench = Bench.ready(device);
    device.errno = 5;
    expect(bench.ask(regionRead(0, 0, 4))).toMatchObject({ flags: REPLY_ERROR, error: 5 });
    expect(bench.ask(regionWrite(0, 0, [1]))).toMatchObject({ flags: REPLY_ERROR, error: 5 });
    expect(bench.ask(dmaMap(RAM, MiB))).toMatchObject({ flags: REPLY_ERROR, error: 5 });
    device.errno = 0;
    expect(bench.ask(dmaMap(RAM, MiB)).error).toBe(0);
  });
});
