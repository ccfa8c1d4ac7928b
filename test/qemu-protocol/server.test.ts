import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PollLoop } from '../../src/qemu/poll-loop.ts';
import { VfioUserServer } from '../../src/qemu/vfio-user/server.ts';
import type { Received, Syscalls } from '../../src/sys/syscalls.ts';
import { unixAddress } from '../../src/sys/unix-address.ts';
import { NO_SYSCALLS, onLinux, SYS } from '../support/syscalls.ts';
import {
  dmaMap,
  getInfo,
  message,
  RecordingDevice,
  regionRead,
  regionWrite,
  reset,
  setIrqs,
  version,
} from '../support/vfio-user.ts';
import { Client } from '../support/vfio-user-client.ts';

const MiB = 0x10_0000;
const countFds = (): number => readdirSync('/proc/self/fd').length;

describe.skipIf(NO_SYSCALLS !== '')(onLinux('the server'), () => {
  let folder: string;
  let path: string;
  let loop: PollLoop;
  let device: RecordingDevice;
  let logged: string[];
  let closing: { close(): void }[];
  let fdsBefore: number;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'vsmmu-server-'));
    path = join(folder, 's');
    loop = new PollLoop(SYS);
    device = new RecordingDevice();
    logged = [];
    closing = [];
    fdsBefore = countFds();
  });

  afterEach(() => {
    for (const thing of closing.toReversed()) thing.close();
    rmSync(folder, { recursive: true, force: true });
    expect(countFds()).toBe(fdsBefore);
  });

  const serve = (at = path): VfioUserServer => {
    const server = new VfioUserServer({ sys: SYS, loop, path: at, device, log: (text) => logged.push(text) });
    closing.push(server);
    return server;
  };
  const turn = (): void => loop.turn(0);
  const turns = (n = 4): void => {
    for (let i = 0; i < n; i++) turn();
  };
  const connect = (): Client => {
    const client = new Client(path);
    closing.push(client);
    return client;
  };
  const ready = (): Client => {
    serve();
    const client = connect();
    client.handshake(turn);
    device.calls.length = 0;
    return client;
  };

  describe('is not made', () => {
    const failure = (at = path): unknown => {
      try {
        serve(at);
      } catch (error) {
        return error;
      }
      return undefined;
    };

    it('at a path that is too long, and says what would do', () => {
      expect(failure(join(folder, 'a'.repeat(100)))).toMatchObject({
        code: 'SOCKET',
        message: expect.stringContaining('1 to 107 bytes') as string,
      });
    });

    it('at a path in no folder', () => {
      expect(failure(join(folder, 'none', 's'))).toMatchObject({
        message: expect.stringContaining('ENOENT') as string,
      });
    });

    it('over a file, which stays as it is', () => {
      writeFileSync(path, 'precious');
      expect(failure()).toMatchObject({
        code: 'SOCKET',
        message: expect.stringContaining('is not a socket') as string,
      });
      expect(readFileSync(path, 'utf8')).toBe('precious');
    });

    it('where another one listens, and that goes on', () => {
      serve();
      expect(failure()).toMatchObject({
        message: expect.stringContaining('Somebody else listens') as string,
      });
      const client = connect();
      client.handshake(turns);
      expect(device.calls).toContain('connected');
    });
  });

  it('takes the place of a socket at which nobody listens', () => {
    const stale = SYS.socket();
    SYS.bind(stale, unixAddress(path)!);
    SYS.close(stale);
    serve();
    connect().handshake(turn);
    expect(device.calls).toEqual(['connected']);
  });

  it('makes a socket for its owner only, and removes it', () => {
    const server = serve();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    server.close();
    server.close();
    expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
  });

  it('can be connected to before the loop turns', () => {
    serve();
    const client = connect();
    client.send(version());
    turn();
    turn();
    expect(client.receive()).toHaveLength(1);
  });

  it('answers commands, several in one turn', () => {
    const client = ready();
    for (const bytes of [regionWrite(0, 8, [1, 2, 3, 4]), regionRead(0, 8, 4), reset()]) client.send(bytes);
    turn();
    const replies = client.receive()!;
    expect(replies.map(({ command, error }) => [command, error])).toEqual([
      [10, 0],
      [9, 0],
      [13, 0],
    ]);
    expect([...replies[1].payload.subarray(16)]).toEqual([1, 2, 3, 4]);
  });

  it('hands over the descriptor of memory, and closes it', () => {
    const client = ready();
    const memfd = SYS.memfd_create('ram');
    SYS.ftruncate(memfd, MiB);
    const before = countFds();
    let seen = -1;
    device.dmaMap = ({ fd }) => {
      const mark = new Uint8Array(2);
      seen = SYS.pread(fd!, mark, 0) === 2 ? mark[1] : -2;
      return 0;
    };
    SYS.pwrite(memfd, Uint8Array.of(0, 77), 0);
    client.send(dmaMap(0x4000_0000, MiB), [memfd]);
    turn();
    expect(client.receive()).toMatchObject([{ command: 2, error: 0 }]);
    expect(seen).toBe(77);
    expect(countFds()).toBe(before);
    device.dmaUnmap = () => {};
    SYS.close(memfd);
  });

  it('signals the eventfds that it was given, until the connection ends', () => {
    const client = ready();
    const eventfd = SYS.eventfd();
    client.send(setIrqs(0x24, 1, 2, 1), [eventfd]);
    turn();
    const { link } = device;
    link!.interrupt(1, 2);
    link!.interrupt(1, 2);
    const value = new Uint8Array(8);
    expect(SYS.read(eventfd, value)).toBe(8);
    expect(value[0]).toBe(2);
    client.close();
    closing.splice(closing.indexOf(client), 1);
    turn();
    expect(link!.interrupt(1, 2)).toBe(false);
    expect(SYS.read(eventfd, value)).toBe(-11);
    SYS.close(eventfd);
  });

  it('sends the request of a device and takes its reply among the commands', () => {
    const client = ready();
    let answer = -1;
    device.link!.dmaWrite(0x0802_0040, Uint8Array.of(140, 0, 0, 0), (errno) => (answer = errno));
    expect(client.receive()).toMatchObject([{ command: 12, id: 0 }]);
    client.send(regionRead(0, 0, 4));
    client.send(message(12, undefined, { id: 0, flags: 1 }));
    turn();
    expect(answer).toBe(0);
    expect(client.receive()).toMatchObject([{ command: 9 }]);
  });

  it('refuses a second client, and serves the next one after the first has gone', () => {
    const first = ready();
    const second = connect();
    turns();
    expect(second.receive()).toBeUndefined();
    expect(logged).toEqual(['recorder: a second client was refused while one is connected']);
    first.send(getInfo());
    turn();
    expect(first.receive()).toHaveLength(1);

    // The end of the first and the arrival of the third come up in one turn.
    first.close();
    closing.splice(closing.indexOf(first), 1);
    const third = connect();
    third.handshake(turns);
    expect(device.calls.slice(-2)).toEqual(['disconnected', 'connected']);
  });

  it('ends a connection that breaks the protocol, with a sentence, and no other', () => {
    const client = ready();
    client.send(message(4, undefined, { size: 3 }));
    turn();
    expect(client.receive()).toBeUndefined();
    expect(logged).toEqual(['recorder: vfio-user header: size is 3, expected 16..65568']);
    expect(device.calls).toEqual(['disconnected']);
    connect().handshake(turns);
    expect(device.calls).toEqual(['disconnected', 'connected']);
  });

  it('survives a device that throws: the connection ends, and the next one is served', () => {
    const client = ready();
    device.reset = () => {
      throw new Error('a bug of ours');
    };
    client.send(reset());
    turn();
    expect(client.receive()).toBeUndefined();
    expect(logged[0]).toContain('a bug of ours');
    expect(device.calls).toEqual(['disconnected']);
    connect().handshake(turns);
    expect(device.calls.at(-1)).toBe('connected');
  });

  function truncating(fd: number, into: Uint8Array, received: Received): number {
    const length = SYS.recvmsg(fd, into, received);
    received.truncated = length > 0;
    return length;
  }

  it('ends a connection whose descriptors it has no room for', () => {
    // The real ones, but for what a full table of descriptors does to recvmsg.
    const full = new Proxy(SYS, {
      get: (_, name: keyof Syscalls) => (name === 'recvmsg' ? truncating : SYS[name].bind(SYS)),
    });
    closing.push(new VfioUserServer({ sys: full, loop, path, device, log: (text) => logged.push(text) }));
    const client = connect();
    client.send(version());
    turns();
    expect(client.receive()).toBeUndefined();
    expect(logged[0]).toContain('no room for the descriptors');
  });

  it('that is closed ends the connection', () => {
    serve();
    const client = connect();
    client.handshake(turn);
    closing[0].close();
    expect(client.receive()).toBeUndefined();
    expect(device.calls.at(-1)).toBe('disconnected');
  });

  it('stops to read from a peer that does not read, and loses nothing when it goes on', () => {
    const client = ready();
    // Replies of 4 KiB to requests of 32 bytes, until neither side takes more.
    let asked = 0;
    for (let idle = 0; idle < 3;) {
      const sent = client.send(regionRead(0, 0, 0x1000));
      if (sent > 0) asked++;
      else idle++;
      turn();
    }
    expect(asked).toBeGreaterThan(256);
    expect(asked).toBeLessThan(10_000);
    const handled = device.calls.length;
    turns(100);
    expect(device.calls.length).toBe(handled);

    let got = 0;
    for (let i = 0; i < asked * 2 && got < asked; i++) {
      got += receiveBytes(client) / 4128;
      turn();
    }
    expect(got).toBe(asked);
  });

  function receiveBytes(client: Client): number {
    const into = new Uint8Array(65536);
    let total = 0;
    for (;;) {
      const length = SYS.read(client.fd, into);
      if (length <= 0) return total;
      total += length;
    }
  }

  it('leaves no descriptor open after 500 connections that end at any byte', () => {
    serve();
    const eventfd = SYS.eventfd();
    const conversation = [
      version(),
      dmaMap(0x4000_0000, MiB),
      setIrqs(0x24, 1, 0, 4),
      setIrqs(0x24, 0, 0, 1),
    ];
    for (let i = 0; i < 500; i++) {
      const client = new Client(path);
      let left = (i * 37) % 420;
      for (const [n, bytes] of conversation.entries()) {
        if (left <= 0) break;
        client.send(bytes.subarray(0, left), Array<number>([0, 1, 4, 17][(i + n) % 4]).fill(eventfd));
        left -= bytes.length;
      }
      turns(2);
      client.close();
      turns(2);
    }
    SYS.close(eventfd);
  });
});
