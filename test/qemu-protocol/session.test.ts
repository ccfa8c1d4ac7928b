import { describe, expect, it } from 'vitest';
import {
  Bench,
  concat,
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
  reset,
  setIrqs,
  version,
} from '../support/vfio-user.ts';

const MiB = 0x10_0000;
const RAM = 0x4000_0000;
const EINVAL = 22;
const REPLY = 1;
const REPLY_ERROR = 0x21;

describe('a header ends the connection', () => {
  it.each([
    ['with a size below its own', message(4, undefined, { size: 15 }), 'size is 15, expected 16..65568'],
    ['with a size of 0', message(4, undefined, { size: 0 }), 'size is 0, expected 16..65568'],
    ['with a size beyond the limit', message(4, undefined, { size: 65569 }), 'size is 65569'],
    ['with the largest size', message(4, undefined, { size: 0xffff_ffff }), 'size is 4294967295'],
    [
      'of neither a command nor a reply',
      message(4, undefined, { flags: 2 }),
      'type is 2, expected 0 (command)',
    ],
  ])('%s', (_, bytes, text) => {
    const bench = Bench.ready();
    expect(bench.session.receive(bytes, [])).toBe(false);
    expect(bench.sent()).toEqual([]);
    expect(bench.texts[0]).toContain(`vfio-user header: ${text}`);
    expect(bench.violations[0].fatal).toBe(true);
  });

  it('of a command before VERSION', () => {
    const bench = new Bench();
    expect(bench.session.receive(getInfo(), [])).toBe(false);
    expect(bench.texts).toEqual(['vfio-user header: command is DEVICE_GET_INFO, expected VERSION first']);
    expect(bench.device.calls).toEqual([]);
  });

  it('with more than 16 descriptors, which are closed', () => {
    const bench = Bench.ready();
    expect(bench.session.receive(message(8), bench.fds(17))).toBe(false);
    expect(bench.openFds.size).toBe(0);
  });

  it('whose descriptors come after it', () => {
    const bench = Bench.ready();
    const bytes = dmaMap(RAM, MiB);
    expect(bench.session.receive(bytes.subarray(0, 20), [])).toBe(true);
    expect(bench.session.receive(bytes.subarray(20), bench.fds(1))).toBe(false);
    expect(bench.openFds.size).toBe(0);
    expect(bench.device.calls).toEqual([]);
  });

  it('and nothing that follows it is looked at', () => {
    const bench = Bench.ready();
    bench.session.receive(concat(message(4, undefined, { size: 3 }), reset()), []);
    bench.session.receive(reset(), bench.fds(1));
    expect(bench.device.calls).toEqual([]);
    expect(bench.openFds.size).toBe(0);
  });
});

describe('a VERSION is refused', () => {
  it.each([
    ['of another major', version(undefined, 1), 'major is 1, expected 0'],
    ['without its end', version('{}'), 'version data is text without an end'],
    [
      'that is no JSON',
      version('{"capabilities"\0'),
      'version data is something else, expected a JSON object',
    ],
    ['that is no object', version('[]\0'), 'version data is something else'],
    [
      'that is not UTF-8',
      message(1, concat(pack([4, 0]), Uint8Array.of(0x22, 0xff, 0x22, 0))),
      'version data',
    ],
    ['with capabilities that are no object', version('{"capabilities": 1}\0'), 'capabilities is number'],
    ['with a negative count', version('{"capabilities": {"max_msg_fds": -1}}\0'), 'max_msg_fds is number'],
    [
      'with a limit of 0',
      version('{"capabilities": {"max_data_xfer_size": 0}}\0'),
      'max_data_xfer_size is 0',
    ],
    ['of endless text', version(`${' '.repeat(4097)}{}\0`), 'expected at most 4096 bytes'],
  ])('%s', (_, bytes, text) => {
    const bench = new Bench();
    expect(bench.session.receive(bytes, [])).toBe(false);
    const [reply] = bench.sent();
    expect([reply.command, reply.flags, reply.error]).toEqual([1, REPLY_ERROR, EINVAL]);
    expect(bench.texts[0]).toContain(text);
    bench.session.end();
    expect(bench.device.calls).toEqual([]);
  });

  it('a second time, and the first one holds', () => {
    const bench = Bench.ready();
    expect(bench.ask(version()).error).toBe(EINVAL);
    expect(bench.ask(getInfo()).flags).toBe(REPLY);
  });
});

describe('a VERSION is answered', () => {
  it('with our side of the capabilities that QEMU names', () => {
    const bench = new Bench();
    const reply = bench.ask(version());
    expect([reply.id, reply.command, reply.flags]).toEqual([0, 1, REPLY]);
    expect([...reply.payload.subarray(0, 4)]).toEqual([0, 0, 0, 0]);
    expect(reply.payload.at(-1)).toBe(0);
    expect(JSON.parse(new TextDecoder().decode(reply.payload.subarray(4, -1)))).toEqual({
      capabilities: {
        max_msg_fds: 16,
        max_data_xfer_size: 65536,
        max_dma_maps: 1024,
        pgsizes: 4096,
        write_multiple: true,
      },
    });
    expect(bench.device.calls).toEqual(['connected']);
  });

  it('with no more than the client named', () => {
    const reply = new Bench().ask(version('{"capabilities": {"max_msg_fds": 8}}\0'));
    expect(new TextDecoder().decode(reply.payload.subarray(4))).toBe('{"capabilities":{"max_msg_fds":16}}\0');
  });

  it('also if it names none', () => {
    expect(new Bench().ask(message(1, pack([2, 0], [2, 3]))).flags).toBe(REPLY);
  });
});

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

describe('a device', () => {
  it('is described as QEMU reads it', () => {
    const bench = Bench.ready();
    expect(bench.ask(getInfo()).payload).toEqual(pack([4, 16], [4, 3], [4, 9], [4, 5]));
    expect(bench.ask(getRegionInfo(0)).payload).toEqual(
      pack([4, 32], [4, 3], [4, 0], [4, 0], [8, 0x1000], [8, 0]),
    );
    expect(bench.ask(getRegionInfo(6, 100)).payload).toEqual(
      pack([4, 32], [4, 1], [4, 6], [4, 0], [8, 0x100], [8, 0]),
    );
    expect(bench.ask(getIrqInfo(1)).payload).toEqual(pack([4, 16], [4, 9], [4, 1], [4, 4]));
  });

  it('gives the descriptor of a region that can be mapped, and keeps it', () => {
    const device = new RecordingDevice();
    device.regions[2] = Object.assign(
      { size: 0x2000, readable: true, writable: true },
      { memory: { fd: 55, offset: 0x3000 } },
    );
    const bench = Bench.ready(device);
    expect(bench.ask(getRegionInfo(2)).payload).toEqual(
      pack([4, 32], [4, 7], [4, 2], [4, 0], [8, 0x2000], [8, 0x3000]),
    );
    expect(bench.sentFds).toEqual([55]);
  });

  it('is read and written, one message an access, whatever its size', () => {
    const bench = Bench.ready();
    const reply = bench.ask(regionWrite(0, 0x80, [1, 2, 3, 4, 5, 6, 7, 8]));
    expect(reply.payload).toEqual(pack([8, 0x80], [4, 0], [4, 8]));
    expect(bench.ask(regionRead(0, 0x81, 3)).payload).toEqual(
      concat(pack([8, 0x81], [4, 0], [4, 3]), Uint8Array.of(2, 3, 4)),
    );
    expect(bench.device.calls).toEqual(['write 0 128 1,2,3,4,5,6,7,8', 'read 0 129 3']);
  });

  it('that fills in nothing answers zeros, not an earlier answer', () => {
    const bench = Bench.ready();
    bench.device.bar.fill(0xaa);
    bench.ask(regionRead(0, 0, 64));
    expect(bench.ask(regionRead(7, 0, 64)).payload.subarray(16)).toEqual(new Uint8Array(64));
  });

  it('takes several writes in one message, in order', () => {
    const bench = Bench.ready();
    const writes = concat(
      pack([8, 2]),
      pack([8, 0x10], [4, 0], [4, 4], [8, 0x0403_0201]),
      pack([8, 0x20], [4, 0], [4, 1], [8, 0xff]),
    );
    expect(bench.ask(message(15, writes)).payload).toEqual(pack([8, 2]));
    expect(bench.device.calls).toEqual(['write 0 16 1,2,3,4', 'write 0 32 255']);
  });

  it('says nothing to a command that wants no reply, not even an error', () => {
    const bench = Bench.ready();
    bench.session.receive(regionWrite(0, 0, [9], { flags: 0x10 }), []);
    bench.session.receive(regionWrite(0, 0x2000, [9], { flags: 0x10 }), []);
    expect(bench.sent()).toEqual([]);
    expect(bench.device.calls).toEqual(['write 0 0 9']);
    expect(bench.session.violations).toBe(1);
  });

  it('is reset', () => {
    const bench = Bench.ready();
    expect(bench.ask(reset())).toMatchObject({ command: 13, flags: REPLY, error: 0 });
    expect(bench.device.calls).toEqual(['reset']);
  });

  it('gets memory with its descriptor, which is closed after the call', () => {
    const bench = Bench.ready();
    const [fd] = bench.fds(1);
    expect(bench.ask(dmaMap(RAM, 512 * MiB, { offset: 4096 }), [fd]).error).toBe(0);
    expect(bench.device.windows.get(RAM)).toEqual({
      address: RAM,
      size: 512 * MiB,
      readable: true,
      writable: true,
      fd,
      offset: 4096,
    });
    expect(bench.openFds.size).toBe(0);
    expect(bench.ask(dmaUnmap(RAM, 512 * MiB)).payload).toEqual(
      pack([4, 24], [4, 0], [8, RAM], [8, 512 * MiB]),
    );
    expect(bench.device.windows.size).toBe(0);
  });

  it('gets memory that is not shared, and memory to read only', () => {
    const bench = Bench.ready();
    bench.ask(dmaMap(RAM, MiB, { flags: 1 }));
    expect(bench.device.windows.get(RAM)).toMatchObject({ fd: undefined, writable: false });
  });

  it('loses all memory at once', () => {
    const bench = Bench.ready();
    bench.ask(dmaMap(RAM, MiB));
    bench.ask(dmaMap(0, MiB));
    expect(bench.ask(dmaUnmap(0, 0, { flags: 2 })).error).toBe(0);
    expect(bench.device.windows.size).toBe(0);
  });

  it('loses memory, interrupts and its link when the connection ends, once', () => {
    const bench = Bench.ready();
    bench.ask(dmaMap(RAM, MiB), bench.fds(1));
    bench.ask(setIrqs(0x24, 1, 0, 4), bench.fds(4));
    const { link } = bench.device;
    bench.device.calls.length = 0;
    expect(bench.openFds.size).toBe(4);
    bench.session.end();
    bench.session.end();
    expect(bench.openFds.size).toBe(0);
    expect(bench.device.calls).toEqual([`unmap ${RAM} ${MiB}`, 'disconnected']);
    expect(link!.dmaWrite(0, Uint8Array.of(1))).toBe(107);
    expect(link!.interrupt(1, 0)).toBe(false);
    expect(bench.session.receive(reset(), bench.fds(1))).toBe(false);
    expect(bench.openFds.size).toBe(0);
  });
});

describe('the stream', () => {
  const conversation = concat(
    version(),
    getInfo(),
    dmaMap(RAM, MiB),
    regionWrite(0, 4, [1, 2]),
    regionRead(0, 4, 2),
    reset(),
  );

  it.each([1, 2, 3, 5, 15, 16, 17, 31, 1000])('may come in pieces of %i bytes', (size) => {
    const whole = new Bench();
    whole.session.receive(conversation, []);
    const pieces = new Bench();
    for (let at = 0; at < conversation.length; at += size)
      pieces.session.receive(conversation.subarray(at, at + size), []);
    expect(pieces.sent()).toEqual(whole.sent());
    expect(pieces.device.calls).toEqual(whole.device.calls);
    expect(pieces.device.calls).toHaveLength(5);
  });

  it('is read up to each boundary and no further', () => {
    const bench = Bench.ready();
    expect(bench.session.wanted).toBe(16);
    const bytes = dmaMap(RAM, MiB);
    bench.session.receive(bytes.subarray(0, 10), bench.fds(1));
    expect(bench.session.wanted).toBe(6);
    bench.session.receive(bytes.subarray(10, 16), []);
    expect(bench.session.wanted).toBe(32);
    bench.session.receive(bytes.subarray(16), []);
    expect(bench.session.wanted).toBe(16);
    expect(bench.device.calls[0]).toContain(`map ${RAM} ${MiB} fd 1`);
  });

  it('that ends in the middle of a message gives its descriptors back', () => {
    const bench = Bench.ready();
    bench.session.receive(dmaMap(RAM, MiB).subarray(0, 30), bench.fds(1));
    expect(bench.openFds.size).toBe(1);
    bench.session.end();
    expect(bench.openFds.size).toBe(0);
  });

  it('of one violation after another is counted, and reported 32 times', () => {
    const bench = Bench.ready();
    for (let i = 0; i < 1000; i++) bench.ask(message(77));
    expect(bench.session.violations).toBe(1000);
    expect(bench.violations).toHaveLength(32);
  });
});

describe('an interrupt', () => {
  const EVENTFD = 0x24;

  it('goes to the eventfd of its vector', () => {
    const bench = Bench.ready();
    const fds = bench.fds(3);
    expect(bench.ask(setIrqs(EVENTFD, 1, 1, 3), fds).error).toBe(0);
    expect(bench.device.link!.interrupt(1, 0)).toBe(false);
    expect(bench.device.link!.interrupt(1, 3)).toBe(true);
    expect(bench.device.link!.interrupt(1, 1)).toBe(true);
    expect(bench.device.link!.interrupt(1, 4)).toBe(false);
    expect(bench.device.link!.interrupt(7, 0)).toBe(false);
    expect(bench.signals).toEqual([fds[2], fds[0]]);
  });

  it('loses its eventfd to the next one, to none, and to the end of all', () => {
    const bench = Bench.ready();
    bench.ask(setIrqs(EVENTFD, 1, 0, 4), bench.fds(4));
    bench.ask(setIrqs(EVENTFD, 1, 0, 2), bench.fds(2));
    expect(bench.openFds.size).toBe(4);
    bench.ask(setIrqs(EVENTFD, 1, 0, 1));
    expect(bench.openFds.size).toBe(3);
    expect(bench.device.link!.interrupt(1, 0)).toBe(false);
    expect(bench.ask(setIrqs(0x21, 1, 0, 0)).error).toBe(0);
    expect(bench.openFds.size).toBe(0);
  });

  it('on INTx masks itself, and one that comes meanwhile goes out at the unmask', () => {
    const bench = Bench.ready();
    const [fd] = bench.fds(1);
    bench.ask(setIrqs(EVENTFD, 0, 0, 1), [fd]);
    const { link } = bench.device;
    expect(link!.interrupt(0, 0)).toBe(true);
    expect(link!.interrupt(0, 0)).toBe(true);
    expect(link!.interrupt(0, 0)).toBe(true);
    expect(bench.signals).toEqual([fd]);
    bench.ask(setIrqs(0x11, 0, 0, 1));
    expect(bench.signals).toEqual([fd, fd]);
    bench.ask(setIrqs(0x11, 0, 0, 1));
    bench.ask(setIrqs(0x11, 0, 0, 1));
    expect(bench.signals).toEqual([fd, fd]);
    link!.interrupt(0, 0);
    expect(bench.signals).toEqual([fd, fd, fd]);
  });

  it('is masked by the client, and triggered by it', () => {
    const bench = Bench.ready();
    const [fd] = bench.fds(1);
    bench.ask(setIrqs(EVENTFD, 0, 0, 1), [fd]);
    bench.ask(setIrqs(0x0a, 0, 0, 1, [0]));
    bench.ask(setIrqs(0x21, 0, 0, 1));
    expect(bench.signals).toEqual([fd]);
    bench.ask(setIrqs(0x12, 0, 0, 1, [1]));
    bench.ask(setIrqs(0x0a, 0, 0, 1, [1]));
    bench.device.link!.interrupt(0, 0);
    expect(bench.signals).toEqual([fd]);
  });
});

describe('a request to the VMM', () => {
  const dmaReply = (
    id: number,
    command: number,
    payload: Uint8Array = new Uint8Array(0),
    flags = 1,
    error = 0,
  ): Uint8Array => message(command, payload, { id, flags, error });

  it('is refused before the handshake, after the end, and beyond the size that the VMM takes', () => {
    const bench = new Bench();
    expect(bench.session.dmaWrite(0, Uint8Array.of(1))).toBe(107);
    bench.ask(version('{"capabilities": {"max_data_xfer_size": 100}}\0'));
    expect(bench.session.dmaWrite(0, new Uint8Array(101))).toBe(90);
    expect(bench.session.dmaWrite(0, new Uint8Array(0))).toBe(90);
    expect(bench.session.dmaRead(0, 101, () => {})).toBe(90);
    expect(bench.session.dmaWrite(0, new Uint8Array(100))).toBe(0);
    bench.session.end();
    expect(bench.session.dmaRead(0, 1, () => {})).toBe(107);
  });

  it('is a DMA_WRITE of address, 64-bit count and data', () => {
    const bench = Bench.ready();
    expect(bench.session.dmaWrite(0x12_0802_0040, pack([4, 140]))).toBe(0);
    expect(bench.sent()).toEqual([
      { id: 0, command: 12, flags: 0, error: 0, payload: pack([8, 0x12_0802_0040], [8, 4], [4, 140]) },
    ]);
  });

  it('is answered in between other commands, in any order', () => {
    const bench = Bench.ready();
    const log: string[] = [];
    bench.session.dmaWrite(1, Uint8Array.of(1), (errno) => log.push(`write ${errno}`));
    bench.session.dmaRead(0x4000_0000, 2, (errno, data) => log.push(`read ${errno} ${[...data].join()}`));
    bench.session.dmaWrite(2, Uint8Array.of(1), (errno) => log.push(`second ${errno}`));
    bench.sent();
    bench.session.receive(
      concat(
        regionRead(0, 0, 4),
        dmaReply(1, 11, pack([8, 0x4000_0000], [8, 2], [2, 0x0201])),
        dmaReply(2, 12, undefined, 0x21, 14),
        reset(),
        dmaReply(0, 12),
      ),
      [],
    );
    expect(log).toEqual(['read 0 1,2', 'second 14', 'write 0']);
    expect(bench.sent().map(({ command }) => command)).toEqual([9, 13]);
  });

  it.each([
    ['that nobody asked for', dmaReply(9, 12), 'reply to DMA_WRITE: id is 9', 1],
    ['to another command', dmaReply(0, 11), 'reply to DMA_READ: command is 11, expected 12', 1],
    ['to an unknown command', dmaReply(0, 99), 'reply to command 99: command is 99', 1],
  ])('takes no reply %s, and goes on', (_, bytes, text, pending) => {
    const bench = Bench.ready();
    let open = 1;
    bench.session.dmaWrite(0, Uint8Array.of(1), () => open--);
    bench.sent();
    expect(bench.session.receive(bytes, bench.fds(1))).toBe(true);
    expect(bench.texts[0]).toContain(text);
    expect(open).toBe(pending);
    expect(bench.openFds.size).toBe(0);
    expect(bench.ask(reset()).error).toBe(0);
  });

  it('fails when it is answered with too little, or with an error without a number', () => {
    const bench = Bench.ready();
    const errnos: number[] = [];
    const done = (errno: number): void => void errnos.push(errno);
    bench.session.dmaRead(0, 4, done);
    bench.session.dmaRead(0, 4, done);
    bench.session.receive(dmaReply(0, 11, pack([8, 0], [8, 4], [2, 0])), []);
    bench.session.receive(dmaReply(1, 11, undefined, 0x21), []);
    expect(errnos).toEqual([71, 5]);
  });

  it('fails when the connection ends', () => {
    const bench = Bench.ready();
    const errnos: number[] = [];
    bench.session.dmaWrite(0, Uint8Array.of(1), (errno) => errnos.push(errno));
    bench.session.end();
    expect(errnos).toEqual([107]);
  });

  it('is refused while 4096 are unanswered; ids are used again', () => {
    const bench = Bench.ready();
    for (let i = 0; i < 4096; i++) expect(bench.session.dmaWrite(0, Uint8Array.of(1))).toBe(0);
    expect(bench.session.dmaWrite(0, Uint8Array.of(1))).toBe(105);
    bench.sent();
    for (let i = 0; i < 70_000; i++) {
      bench.session.receive(dmaReply(i & 0xffff, 12), []);
      expect(bench.session.dmaWrite(0, Uint8Array.of(1))).toBe(0);
    }
    expect(bench.session.violations).toBe(0);
  });

  it('keeps its id for as long as it is unanswered, however many others come and go', () => {
    const bench = Bench.ready();
    let first = -1;
    bench.session.dmaWrite(0, Uint8Array.of(1), (errno) => (first = errno));
    bench.sent();
    for (let i = 1; i < 0x1_0010; i++) {
      bench.session.dmaWrite(0, Uint8Array.of(1));
      const [request] = bench.sent();
      expect(request.id).not.toBe(0);
      bench.session.receive(dmaReply(request.id, 12), []);
    }
    expect(first).toBe(-1);
    bench.session.receive(dmaReply(0, 12), []);
    expect(first).toBe(0);
  });
});
