import { describe, expect, it } from 'vitest';
import {
  Bench,
  concat,
  dmaMap,
  getInfo,
  message,
  pack,
  regionRead,
  regionWrite,
  reset,
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
