import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { LinuxKernel } from '../../../src/host/linux/linux-kernel.ts';
import { ERRNO } from '../../../src/iommufd/uapi/errno.ts';
import { IOMMU_IOAS_ALLOC, IOMMU_VEVENTQ_ALLOC } from '../../../src/iommufd/uapi/iommufd.ts';
import { VFIO_DEVICE_RESET } from '../../../src/iommufd/uapi/vfio.ts';
import { PollLoop } from '../../../src/qemu/poll-loop.ts';
import type { Syscalls } from '../../../src/sys/syscalls.ts';
import { NO_SYSCALLS, onLinux, SYS } from '../../support/syscalls.ts';

const kernels: LinuxKernel[] = [];
function make(options: Partial<ConstructorParameters<typeof LinuxKernel>[0]> = {}): LinuxKernel {
  const kernel = new LinuxKernel({ sys: SYS, ...options });
  kernels.push(kernel);
  return kernel;
}
const folders: string[] = [];
afterEach(() => {
  for (const kernel of kernels.splice(0)) kernel.release();
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

/** Files that this process has open, without the ones that Node opens and closes by itself. */
const openFiles = (): string[] =>
  readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)].filter((target) => /memfd|eventfd|\/dev\//.test(target));
    } catch {
      return [];
    }
  });
const mappingsOf = (name: string): number =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(name)).length;
/** A file of our own, for reading and writing. */
function file(content = ''): string {
  const folder = mkdtempSync(join(tmpdir(), 'vsmmu-linux-'));
  folders.push(folder);
  const path = join(folder, 'file');
  writeFileSync(path, content);
  return path;
}
const one = new Uint8Array(new BigUint64Array([1n]).buffer);
const count8 = (kernel: LinuxKernel, fd: number): number => kernel.read(fd, new Uint8Array(8));

describe.skipIf(NO_SYSCALLS !== '')(onLinux('what Linux refuses keeps its errno'), () => {
  it('open', () => {
    const kernel = make();
    expect(kernel.open('/dev/vfio/devices/vfio-none')).toBe(-ERRNO.ENOENT);
    expect(kernel.open('/')).toBe(-21);
    expect(kernel.openFiles).toEqual([]);
  });

  it.skipIf(existsSync('/dev/iommu'))(
    'open of /dev/iommu on a machine without iommufd [it has /dev/iommu]',
    () => {
      expect(make().open('/dev/iommu')).toBe(-ERRNO.ENOENT);
    },
  );

  it('ioctls of files that are not iommufd', () => {
    const kernel = make();
    const fds = [kernel.open('/dev/null'), kernel.eventfd(), kernel.open(file())];
    for (const fd of fds)
      expect(kernel.ioctl(fd, IOMMU_IOAS_ALLOC.request, IOMMU_IOAS_ALLOC.encode())).toBe(ERRNO.ENOTTY);
    expect(kernel.ioctl(fds[0], VFIO_DEVICE_RESET.request, new Uint8Array(0))).toBe(ERRNO.ENOTTY);
  });

  it('calls with a descriptor that is not open', () => {
    const kernel = make();
    const fd = kernel.eventfd();
    expect(kernel.close(fd)).toBe(0);
    expect(kernel.close(fd)).toBe(ERRNO.EBADF);
    expect(kernel.ioctl(fd, IOMMU_IOAS_ALLOC.request, IOMMU_IOAS_ALLOC.encode())).toBe(ERRNO.EBADF);
    expect(kernel.read(fd, new Uint8Array(8))).toBe(-ERRNO.EBADF);
    expect(kernel.write(fd, one)).toBe(-ERRNO.EBADF);
    expect(kernel.pread(fd, new Uint8Array(8), 0)).toBe(-ERRNO.EBADF);
    expect(kernel.pwrite(fd, new Uint8Array(8), 0)).toBe(-ERRNO.EBADF);
  });

  it('reads: nothing there, too little room, no position', () => {
    const kernel = make();
    const fd = kernel.eventfd();
    expect(kernel.read(fd, new Uint8Array(8))).toBe(-ERRNO.EAGAIN);
    expect(kernel.read(fd, new Uint8Array(7))).toBe(-ERRNO.EINVAL);
    expect(kernel.pread(fd, new Uint8Array(8), 0)).toBe(-ERRNO.ESPIPE);
  });

  it('writes: too little, more than fits', () => {
    const kernel = make();
    const fd = kernel.eventfd();
    expect(kernel.write(fd, new Uint8Array(7))).toBe(-ERRNO.EINVAL);
    expect(kernel.write(fd, new Uint8Array(8).fill(0xff))).toBe(-ERRNO.EINVAL);
    const largest = Uint8Array.of(0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
    expect(kernel.write(fd, largest)).toBe(8);
    expect(kernel.write(fd, one)).toBe(-ERRNO.EAGAIN);
  });

  it('pointers in an argument to where no memory is', () => {
    const kernel = make();
    expect(ethtool(kernel, 0x10n)).toBe(ERRNO.EFAULT);
  });
});

/** Asks for the link state of `lo`, which the kernel reads from and writes to an address in the argument. */
function ethtool(kernel: LinuxKernel, address: bigint): number {
  const SIOCETHTOOL = 0x8946;
  const ifreq = new Uint8Array(40);
  ifreq.set(new TextEncoder().encode('lo'));
  new DataView(ifreq.buffer).setBigUint64(16, address, true);
  const socket = SYS.socket();
  try {
    return kernel.ioctl(socket, SIOCETHTOOL, ifreq);
  } finally {
    SYS.close(socket);
  }
}

describe.skipIf(NO_SYSCALLS !== '')(onLinux('user memory'), () => {
  it.each([
    ['a small array', () => new Uint8Array(8)],
    ['a view into a larger array', () => new Uint8Array(1000).subarray(13, 21)],
    ['64 MiB', () => new Uint8Array(2 ** 26)],
  ])('is where its address says: %s', (_, allocate) => {
    const kernel = make();
    const memory = kernel.userMemory(allocate());
    memory.bytes.set([1, 2, 3, 4, 5, 6, 7, 8]);
    const self = kernel.open('/proc/self/mem');
    const into = new Uint8Array(8);
    expect(kernel.pread(self, into, Number(memory.address))).toBe(8);
    expect([...into]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(kernel.pwrite(self, Uint8Array.of(9), Number(memory.address) + 7)).toBe(1);
    expect(memory.bytes[7]).toBe(9);
    memory.release();
    memory.release();
  });

  it('is written to by an ioctl whose argument points to it', () => {
    const ETHTOOL_GLINK = 0x0a;
    const kernel = make();
    const memory = kernel.userMemory(Uint8Array.of(ETHTOOL_GLINK, 0, 0, 0, 0xff, 0xff, 0xff, 0xff));
    expect(ethtool(kernel, memory.address)).toBe(0);
    expect([...memory.bytes.subarray(5)]).toEqual([0, 0, 0]);
  });

  it('does not move while much is allocated around it', () => {
    const kernel = make();
    const memory = Array.from({ length: 100 }, (_, i) =>
      kernel.userMemory(new Uint8Array(8 + 8 * i).fill(i)),
    );
    for (let i = 0; i < 2000; i++) new Uint8Array(2 ** 16).fill(0xff);
    const self = kernel.open('/proc/self/mem');
    const into = new Uint8Array(1);
    for (const [i, { address, bytes }] of memory.entries()) {
      expect(SYS.address(bytes)).toBe(address);
      kernel.pread(self, into, Number(address));
      expect(into[0]).toBe(i);
    }
  });

  it('for a guest is zero, shared and begins at a page', () => {
    const kernel = make();
    const ram = kernel.guestRam(2 ** 24);
    expect(ram).toHaveLength(2 ** 24);
    expect(ram.every((byte) => byte === 0)).toBe(true);
    // The largest page of arm64 is 64 KiB; this machine's is no smaller than 4 KiB.
    expect(kernel.userMemory(ram).address % 4096n).toBe(0n);
    expect(mappingsOf('memfd:vsmmu-guest-ram')).toBe(1);
    kernel.release();
    expect(mappingsOf('memfd:vsmmu-guest-ram')).toBe(0);
    expect(ram[0]).toBe(0);
  });

  it('for a guest is refused if there can be none', () => {
    const kernel = make();
    expect(() => kernel.guestRam(-4096)).toThrow('EINVAL');
    expect(() => kernel.guestRam(0)).toThrow('EINVAL');
    expect(mappingsOf('memfd:vsmmu-guest-ram')).toBe(0);
  });
});

describe.skipIf(NO_SYSCALLS !== '')(onLinux('descriptors'), () => {
  it('take what is written to them', () => {
    const kernel = make();
    const fd = kernel.eventfd();
    expect(kernel.write(fd, Uint8Array.of(0, 0, 1, 0, 0, 0, 0, 0, 99).subarray(1))).toBe(8);
    expect(kernel.write(fd, one)).toBe(8);
    const count = new Uint8Array(8);
    expect(kernel.read(fd, count)).toBe(8);
    expect([...count]).toEqual([1, 1, 0, 0, 0, 0, 0, 99]);
  });

  it('are opened for reading and writing, at offsets', () => {
    const kernel = make();
    const fd = kernel.open(file('0123456789'));
    expect(kernel.pwrite(fd, new TextEncoder().encode('abc'), 4)).toBe(3);
    const into = new Uint8Array(16);
    expect(kernel.pread(fd, into, 2)).toBe(8);
    expect(new TextDecoder().decode(into.subarray(0, 8))).toBe('23abc789');
    expect(kernel.read(fd, into)).toBe(10);
  });

  it('that an ioctl made belong to the kernel port too', () => {
    // No iommufd is needed to see it: the ioctl that the port sees says which descriptor it made.
    const made = SYS.eventfd();
    const sys = Object.create(SYS, {
      ioctl: {
        value: (_fd: number, request: number, arg: Uint8Array): number => {
          if (request === IOMMU_VEVENTQ_ALLOC.request) IOMMU_VEVENTQ_ALLOC.set(arg, 'out_veventq_fd', made);
          return 0;
        },
      },
      close: { value: (fd: number) => SYS.close(fd) },
      eventfd: { value: () => SYS.eventfd() },
    }) as Syscalls;
    const kernel = make({ sys });
    const iommufd = kernel.eventfd();
    expect(kernel.ioctl(iommufd, IOMMU_VEVENTQ_ALLOC.request, IOMMU_VEVENTQ_ALLOC.encode())).toBe(0);
    expect(kernel.openFiles).toEqual([iommufd, made]);
    kernel.release();
    expect(SYS.close(made)).toBe(-ERRNO.EBADF);
  });

  it('of others are not closed', () => {
    const kernel = make();
    const other = SYS.eventfd();
    expect(kernel.close(other)).toBe(ERRNO.EBADF);
    expect(SYS.close(other)).toBe(0);
  });

  it('are all closed by release, whatever was going on; and the port can be used again', () => {
    const before = openFiles();
    const kernel = make();
    kernel.open('/dev/null');
    const eventfd = kernel.eventfd();
    kernel.onReadable(eventfd, () => {});
    kernel.guestRam(4096 * 16);
    expect(openFiles().length).toBe(before.length + 2);
    kernel.release();
    kernel.release();
    expect(openFiles()).toEqual(before);
    expect(kernel.openFiles).toEqual([]);
    expect(kernel.eventfd()).toBeGreaterThan(0);
  });
});

describe.skipIf(NO_SYSCALLS !== '')(onLinux('a watch in Node’s event loop'), () => {
  it('calls as long as there is something to read, and never from inside another call', async () => {
    const kernel = make();
    const fd = kernel.eventfd();
    let inside = true;
    let calls = 0;
    await new Promise<void>((done) => {
      const watch = kernel.onReadable(fd, () => {
        expect(inside).toBe(false);
        if (++calls < 3) return;
        expect(count8(kernel, fd)).toBe(8);
        watch.stop();
        done();
      });
      SYS.write(fd, one);
      inside = false;
    });
    expect(calls).toBe(3);
  });

  it('is silent while there is nothing, and after it was stopped', async () => {
    const kernel = make();
    const fd = kernel.eventfd();
    let calls = 0;
    const watch = kernel.onReadable(fd, () => void calls++);
    await sleep(20);
    expect(calls).toBe(0);
    watch.stop();
    watch.stop();
    SYS.write(fd, one);
    await sleep(20);
    expect(calls).toBe(0);
  });

  it('can be begun again at once, and twice at a time', async () => {
    const kernel = make();
    const fd = kernel.eventfd();
    SYS.write(fd, one);
    const seen: string[] = [];
    kernel.onReadable(fd, () => {}).stop();
    await new Promise<void>((done) => {
      const a = kernel.onReadable(fd, () => {
        seen.push('a');
        a.stop();
      });
      const b = kernel.onReadable(fd, () => {
        seen.push('b');
        b.stop();
        done();
      });
    });
    expect(seen).toEqual(['a', 'b']);
  });

  it('that another one stops in the same turn is not called', async () => {
    const kernel = make();
    const fd = kernel.eventfd();
    SYS.write(fd, one);
    let calls = 0;
    await new Promise<void>((done) => {
      const a = kernel.onReadable(fd, () => {
        b.stop();
        a.stop();
        setTimeout(done, 10);
      });
      const b = kernel.onReadable(fd, () => void calls++);
    });
    expect(calls).toBe(0);
  });

  it('tells the end of a stream', async () => {
    const [a, b] = SYS.socketpair() as readonly [number, number];
    SYS.close(a);
    await new Promise<void>((done) => {
      const stop = SYS.watchReadable(b, () => {
        (stop as { stop(): void }).stop();
        done();
      });
    });
    SYS.close(b);
  });

  it('of what cannot be waited for does nothing: a closed descriptor, a regular file, a device without poll', async () => {
    const kernel = make();
    const fds = [kernel.open(file('content')), kernel.open('/dev/null'), kernel.eventfd(), -1];
    kernel.close(fds[2]);
    let calls = 0;
    for (const fd of fds) kernel.onReadable(fd, () => void calls++).stop();
    const watches = fds.map((fd) => kernel.onReadable(fd, () => void calls++));
    await sleep(10);
    expect(calls).toBe(0);
    for (const watch of watches) watch.stop();
    expect(SYS.watchReadable(fds[0], () => {})).toBe(-ERRNO.EPERM);
    expect(SYS.watchReadable(fds[2], () => {})).toBe(-ERRNO.EBADF);
  });

  it('ends with its descriptor, whose number may then be another’s', async () => {
    const kernel = make();
    const fd = kernel.eventfd();
    let calls = 0;
    const watch = kernel.onReadable(fd, () => void calls++);
    kernel.close(fd);
    const next = kernel.eventfd();
    expect(next).toBe(fd);
    SYS.write(next, one);
    await sleep(10);
    watch.stop();
    expect(calls).toBe(0);
    await new Promise<void>((done) => {
      const again = kernel.onReadable(next, () => {
        again.stop();
        done();
      });
    });
  });

  it('whose callback throws passes it on as an uncaught exception, and goes on', async () => {
    const kernel = make();
    const fd = kernel.eventfd();
    SYS.write(fd, one);
    const others = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    try {
      const caught = new Promise<Error>((resolve) => process.once('uncaughtException', resolve));
      let calls = 0;
      await new Promise<void>((done) => {
        const watch = kernel.onReadable(fd, () => {
          if (++calls === 1) throw new Error('thrown by a watcher');
          watch.stop();
          done();
        });
      });
      expect((await caught).message).toBe('thrown by a watcher');
    } finally {
      for (const listener of others) process.on('uncaughtException', listener);
    }
  });
});

describe.skipIf(NO_SYSCALLS !== '')(onLinux('a watch in a poll loop'), () => {
  it('calls from its turns', () => {
    const loop = new PollLoop(SYS);
    const kernel = make({ watch: (fd, ready) => loop.watch(fd, { readable: true }, ready) });
    const fd = kernel.eventfd();
    let calls = 0;
    const watch = kernel.onReadable(fd, () => {
      calls++;
      count8(kernel, fd);
    });
    loop.turn(0);
    expect(calls).toBe(0);
    SYS.write(fd, one);
    loop.turn(0);
    loop.turn(0);
    expect(calls).toBe(1);
    watch.stop();
    SYS.write(fd, one);
    loop.turn(0);
    expect(calls).toBe(1);
  });
});
