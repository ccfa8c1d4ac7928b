import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { ERRNO, errnoName } from '../../src/sys/errno.ts';
import * as linux from '../../src/sys/linux.ts';
import { unixAddress } from '../../src/sys/unix-address.ts';
import { NO_SYSCALLS, SYS, onLinux } from '../support/syscalls.ts';

const open: number[] = [];
afterEach(() => {
  for (const fd of open.splice(0)) SYS.close(fd);
});

/** Checks that a call succeeded, and closes its descriptor after the test. */
function own(fd: number): number {
  expect(fd).toBeGreaterThanOrEqual(0);
  open.push(fd);
  return fd;
}

function pair(): readonly [number, number] {
  const result = SYS.socketpair();
  if (typeof result === 'number') throw new Error(errnoName(result));
  open.push(...result);
  return result;
}

const received = (): { fds: number[]; truncated: boolean } => ({ fds: [], truncated: false });
const countFds = (): number => readdirSync('/proc/self/fd').length;
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

describe.skipIf(NO_SYSCALLS !== '')(onLinux('failing calls'), () => {
  it('give the negative errno', () => {
    expect(SYS.close(-1)).toBe(-9);
    expect(SYS.read(-1, new Uint8Array(1))).toBe(-9);
    expect(SYS.open('/nowhere/at/all', linux.O_RDONLY)).toBe(-2);
    expect(SYS.ftruncate(own(SYS.eventfd()), 1)).toBe(-22);
    expect(SYS.mmap(0n, 0, linux.PROT_READ, linux.MAP_PRIVATE | linux.MAP_ANONYMOUS, -1, 0)).toBe(-22n);
    expect(SYS.ioctl(own(SYS.memfd_create('x')), 0x3b81, new Uint8Array(64))).toBe(-25);
    expect(SYS.bind(-1, unixAddress('/tmp/x')!)).toBe(-9);
    expect(SYS.accept4(own(SYS.socket()))).toBe(-22);
    expect(SYS.sendmsg(own(SYS.socket()), bytes('x'), [])).toBe(-107);
  });

  it('to send more descriptors than the kernel passes leave nothing behind', () => {
    const [a, b] = pair();
    expect(SYS.sendmsg(a, bytes('x'), Array<number>(254).fill(a))).toBe(-22);
    expect(SYS.recvmsg(b, new Uint8Array(8), received())).toBe(-11);
  });

  it('to send a descriptor that is not open send nothing', () => {
    const [a, b] = pair();
    expect(SYS.sendmsg(a, bytes('x'), [12345])).toBe(-9);
    expect(SYS.recvmsg(b, new Uint8Array(8), received())).toBe(-11);
  });
});

describe.skipIf(NO_SYSCALLS !== '')(onLinux('descriptors'), () => {
  it('are close-on-exec, however they come into the process', () => {
    const [a, b] = pair();
    const fds = [SYS.open('/dev/null', linux.O_RDWR), SYS.memfd_create('x'), SYS.eventfd(), SYS.socket()].map(
      own,
    );
    SYS.sendmsg(a, bytes('x'), [fds[0]]);
    const message = received();
    SYS.recvmsg(b, new Uint8Array(1), message);
    fds.push(a, b, own(message.fds[0]));
    for (const fd of fds) expect(SYS.fcntl(fd, linux.F_GETFD, 0)).toBe(linux.FD_CLOEXEC);
  });

  it('cross a socket with the first byte of their message, and are the same file', () => {
    const [a, b] = pair();
    const memfd = own(SYS.memfd_create('crossing'));
    expect(SYS.write(memfd, bytes('hello'))).toBe(5);
    expect(SYS.sendmsg(a, bytes('header'), [memfd, memfd])).toBe(6);
    const message = received();
    const into = new Uint8Array(16);
    expect(SYS.recvmsg(b, into.subarray(0, 2), message)).toBe(2);
    expect(message.fds).toHaveLength(2);
    message.fds.map(own);
    const content = new Uint8Array(5);
    expect(SYS.pread(message.fds[1], content, 0)).toBe(5);
    expect(content).toEqual(bytes('hello'));
    expect(SYS.recvmsg(b, into, message)).toBe(4);
    expect(message.fds).toEqual([]);
    expect(into.subarray(0, 4)).toEqual(bytes('ader'));
  });

  it('cross in the largest number that the kernel passes', () => {
    const [a, b] = pair();
    const eventfd = own(SYS.eventfd());
    expect(SYS.sendmsg(a, bytes('x'), Array<number>(253).fill(eventfd))).toBe(1);
    const message = received();
    expect(SYS.recvmsg(b, new Uint8Array(1), message)).toBe(1);
    message.fds.map(own);
    expect(message.fds).toHaveLength(253);
    expect(new Set(message.fds).size).toBe(253);
    expect(message.truncated).toBe(false);
  });

  it('that nobody receives do not leak', () => {
    const before = countFds();
    const [a, b] = SYS.socketpair() as readonly [number, number];
    const eventfd = SYS.eventfd();
    SYS.sendmsg(a, bytes('x'), [eventfd]);
    for (const fd of [a, b, eventfd]) SYS.close(fd);
    expect(countFds()).toBe(before);
  });
});

describe.skipIf(NO_SYSCALLS !== '')(onLinux('sockets'), () => {
  it('say 0 at the end of the stream, and EPIPE without a signal', () => {
    const [a, b] = pair();
    SYS.close(open.splice(open.indexOf(a), 1)[0]);
    expect(SYS.recvmsg(b, new Uint8Array(8), received())).toBe(0);
    expect(SYS.sendmsg(b, bytes('x'), [])).toBe(-32);
  });

  it('take at most what fits and never wait', () => {
    const [a, b] = pair();
    const chunk = new Uint8Array(100_000).fill(7);
    let sent = 0;
    let result: number;
    while ((result = SYS.sendmsg(a, chunk, [])) > 0) {
      expect(result).toBeLessThanOrEqual(65536);
      sent += result;
    }
    expect(result).toBe(-11);
    const into = new Uint8Array(100_000);
    let got = 0;
    while ((result = SYS.recvmsg(b, into, received())) > 0) got += result;
    expect(result).toBe(-11);
    expect(got).toBe(sent);
    expect(into[0]).toBe(7);
  });

  it('listen at a path, refuse when nobody listens, and accept without waiting', () => {
    const folder = mkdtempSync(join(tmpdir(), 'vsmmu-sys-'));
    try {
      const address = unixAddress(join(folder, 's'))!;
      const server = own(SYS.socket());
      expect(SYS.bind(server, address)).toBe(0);
      const client = own(SYS.socket());
      expect(SYS.connect(client, address)).toBe(-111);
      expect(SYS.listen(server, 1)).toBe(0);
      expect(SYS.accept4(server)).toBe(-11);
      expect(SYS.connect(client, address)).toBe(0);
      const connection = own(SYS.accept4(server));
      expect(SYS.fcntl(connection, linux.F_GETFL, 0) & linux.O_NONBLOCK).toBe(linux.O_NONBLOCK);
      SYS.sendmsg(client, bytes('abc'), []);
      const into = new Uint8Array(8);
      expect(SYS.read(connection, into)).toBe(3);
      expect(SYS.bind(own(SYS.socket()), address)).toBe(-98);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe.skipIf(NO_SYSCALLS !== '')(onLinux('files and events'), () => {
  it('are read and written at an offset, through views into larger arrays', () => {
    const memfd = own(SYS.memfd_create('offsets'));
    const array = new Uint8Array(32);
    array.set([1, 2, 3], 20);
    expect(SYS.pwrite(memfd, array.subarray(20, 23), 4096)).toBe(3);
    expect(SYS.pread(memfd, array.subarray(5, 9), 4095)).toBe(4);
    expect([...array.subarray(4, 10)]).toEqual([0, 0, 1, 2, 3, 0]);
  });

  it('reach offsets above 4 GiB, where VFIO keeps its regions', () => {
    const memfd = own(SYS.memfd_create('large'));
    expect(SYS.ftruncate(memfd, 0x70_0000_1000)).toBe(0);
    expect(SYS.pwrite(memfd, bytes('config'), 0x70_0000_0000)).toBe(6);
    const into = new Uint8Array(6);
    expect(SYS.pread(memfd, into, 0x70_0000_0000)).toBe(6);
    expect(into).toEqual(bytes('config'));
  });

  it('carry an ioctl argument in both directions', () => {
    const [a, b] = pair();
    SYS.write(a, bytes('seven'));
    const arg = new Uint8Array(4);
    expect(SYS.ioctl(b, 0x541b /* FIONREAD */, arg)).toBe(0);
    expect([...arg]).toEqual([5, 0, 0, 0]);
  });

  it('wake ppoll; an idle one times out, a negative descriptor is skipped', () => {
    const eventfd = own(SYS.eventfd());
    const pollfds = new Uint8Array(16);
    const view = new DataView(pollfds.buffer);
    view.setInt32(0, -1, true);
    view.setInt32(8, eventfd, true);
    view.setInt16(12, linux.POLLIN, true);
    expect(SYS.ppoll(pollfds, 2, 0)).toBe(0);
    expect(SYS.ppoll(pollfds, 2, 1.5)).toBe(0);
    const one = new Uint8Array(new BigUint64Array([1n]).buffer);
    expect(SYS.write(eventfd, one)).toBe(8);
    expect(SYS.ppoll(pollfds, 2, -1)).toBe(1);
    expect(view.getInt16(14, true)).toBe(linux.POLLIN);
    const value = new Uint8Array(8);
    expect(SYS.read(eventfd, value)).toBe(8);
    expect(SYS.read(eventfd, value)).toBe(-11);
  });

  it('report a closed descriptor in ppoll as POLLNVAL', () => {
    const pollfds = new Uint8Array(8);
    new DataView(pollfds.buffer).setInt32(0, 12345, true);
    expect(SYS.ppoll(pollfds, 1, -1)).toBe(1);
    expect(new DataView(pollfds.buffer).getInt16(6, true)).toBe(linux.POLLNVAL);
  });
});

describe('errno names', () => {
  it('are those of this kernel', async () => {
    const { constants } = await import('node:os');
    if (process.platform !== 'linux') return;
    for (const [name, number] of Object.entries(ERRNO))
      expect([name, (constants.errno as Record<string, number>)[name] ?? number]).toEqual([name, number]);
  });

  it('take either sign, and have words for a number without a name', () => {
    expect(errnoName(-22)).toBe('EINVAL');
    expect(errnoName(22)).toBe('EINVAL');
    expect(errnoName(4095)).toBe('errno 4095');
  });
});

describe('UNIX addresses', () => {
  it.each([
    ['an empty path', ''],
    ['a path with a NUL', '/tmp/a\0b'],
    ['a path of 108 bytes', '/'.repeat(108)],
    ['a path of 107 characters and 108 bytes', `/${'a'.repeat(105)}é`],
  ])('refuse %s', (_, path) => {
    expect(unixAddress(path)).toBeUndefined();
  });

  it('hold a path of 107 bytes with its NUL', () => {
    const address = unixAddress('/'.repeat(107))!;
    expect(address).toHaveLength(110);
    expect([address[0], address[1], address[2], address[109]]).toEqual([1, 0, 0x2f, 0]);
  });
});
