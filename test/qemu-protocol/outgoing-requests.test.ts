import { describe, expect, it } from 'vitest';
import { Bench, concat, message, pack, regionRead, reset, version } from '../support/vfio-user.ts';

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
