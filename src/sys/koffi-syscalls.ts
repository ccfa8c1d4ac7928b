/** {@link Syscalls} over libc, called through koffi. The only file of the project that loads it. */

import {
  AF_UNIX,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MFD_ALLOW_SEALING,
  MFD_CLOEXEC,
  EFD_CLOEXEC,
  EFD_NONBLOCK,
  MSG_CMSG_CLOEXEC,
  MSG_CTRUNC,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  O_CLOEXEC,
  PROT_READ,
  PROT_WRITE,
  SCM_MAX_FD,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  EPOLL_CTL_ADD,
  F_GETFD,
} from './linux.ts';
import { ERRNO } from './errno.ts';
import { ARENA_SIZE, MESSAGE_MAX, MessageArena } from './message-arena.ts';
import { ReadableWatches } from './readable-watches.ts';
import type { Fd, Received, Result, Stop, Syscalls } from './syscalls.ts';
import { UnsupportedHere } from './unsupported.ts';

type Koffi = typeof import('koffi');
type Call = (...args: (number | bigint | string | Uint8Array | null)[]) => number;
type AddressCall = (...args: (number | bigint)[]) => bigint;

const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const STREAM = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

class KoffiSyscalls implements Syscalls {
  readonly #koffi: Koffi;
  readonly #call: Readonly<Record<(typeof PROTOTYPES)[number][0], Call>>;
  readonly #mmap: AddressCall;
  readonly #arena: MessageArena;
  readonly #watches: ReadableWatches;
  readonly #timespec = new BigInt64Array(2);
  readonly #timespecBytes = new Uint8Array(this.#timespec.buffer);

  constructor(koffi: Koffi) {
    this.#koffi = koffi;
    const libc = koffi.load(null);
    this.#call = Object.fromEntries(
      PROTOTYPES.map(([name, result, parameters]) => [
        name,
        libc.func(`${result} ${name}(${parameters})`) as Call,
      ]),
    ) as Record<(typeof PROTOTYPES)[number][0], Call>;
    this.#mmap = libc.func(
      'void *mmap(void *address, size_t length, int prot, int flags, int fd, int64_t offset)',
    ) as AddressCall;
    const address = this.mmap(0n, ARENA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address < 0n) throw new Error(`mmap of ${ARENA_SIZE} bytes failed (errno ${-address})`);
    this.#arena = new MessageArena(this.view(address, ARENA_SIZE), address);
    this.#watches = new ReadableWatches((fd, ready) => koffi.node.poll(fd, { readable: true }, ready));
  }

  /** Turns libc's -1 into the negative errno. */
  #result(result: number): Result {
    return result < 0 ? -this.#koffi.errno() : result;
  }

  open(path: string, flags: number): Result {
    return this.#result(this.#call.open(path, flags | O_CLOEXEC, 0));
  }

  close(fd: Fd): Result {
    return this.#result(this.#call.close(fd));
  }

  read(fd: Fd, into: Uint8Array): Result {
    return this.#result(this.#call.read(fd, into, into.length));
  }

  write(fd: Fd, from: Uint8Array): Result {
    return this.#result(this.#call.write(fd, from, from.length));
  }

  pread(fd: Fd, into: Uint8Array, offset: number): Result {
    return this.#result(this.#call.pread(fd, into, into.length, offset));
  }

  pwrite(fd: Fd, from: Uint8Array, offset: number): Result {
    return this.#result(this.#call.pwrite(fd, from, from.length, offset));
  }

  ioctl(fd: Fd, request: number, arg: Uint8Array): Result {
    return this.#result(this.#call.ioctl(fd, request, arg));
  }

  fcntl(fd: Fd, command: number, argument: number): Result {
    return this.#result(this.#call.fcntl(fd, command, argument));
  }

  ftruncate(fd: Fd, size: number): Result {
    return this.#result(this.#call.ftruncate(fd, size));
  }

  memfd_create(name: string): Result {
    return this.#result(this.#call.memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  }

  eventfd(): Result {
    return this.#result(this.#call.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }

  mmap(address: bigint, length: number, prot: number, flags: number, fd: Fd, offset: number): bigint {
    const mapped = this.#mmap(address, length, prot, flags, fd, offset);
    return mapped === MAP_FAILED ? BigInt(-this.#koffi.errno()) : mapped;
  }

  munmap(address: bigint, length: number): Result {
    return this.#result(this.#call.munmap(address, length));
  }

  view(address: bigint, length: number): ArrayBuffer {
    return this.#koffi.view(address, length);
  }

  address(bytes: Uint8Array): bigint {
    return this.#koffi.address(bytes);
  }

  socket(): Result {
    return this.#result(this.#call.socket(AF_UNIX, STREAM, 0));
  }

  socketpair(): Result | readonly [Fd, Fd] {
    const pair = new Int32Array(2);
    const result = this.#result(this.#call.socketpair(AF_UNIX, STREAM, 0, new Uint8Array(pair.buffer)));
    return result < 0 ? result : [pair[0], pair[1]];
  }

  bind(fd: Fd, address: Uint8Array): Result {
    return this.#result(this.#call.bind(fd, address, address.length));
  }

  listen(fd: Fd, backlog: number): Result {
    return this.#result(this.#call.listen(fd, backlog));
  }

  accept4(fd: Fd): Result {
    return this.#result(this.#call.accept4(fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC));
  }

  connect(fd: Fd, address: Uint8Array): Result {
    return this.#result(this.#call.connect(fd, address, address.length));
  }

  recvmsg(fd: Fd, into: Uint8Array, received: Received): Result {
    const arena = this.#arena;
    received.fds.length = 0;
    received.truncated = false;
    arena.prepareReceive(Math.min(into.length, MESSAGE_MAX));
    const length = this.#result(this.#call.recvmsg(fd, arena.msghdr, MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
    if (length < 0) return length;
    into.set(arena.data(length));
    arena.takeDescriptors(received.fds);
    received.truncated = (arena.flags & MSG_CTRUNC) !== 0;
    return length;
  }

  sendmsg(fd: Fd, from: Uint8Array, fds: readonly Fd[]): Result {
    if (fds.length > SCM_MAX_FD) return -ERRNO.EINVAL;
    this.#arena.prepareSend(from.subarray(0, MESSAGE_MAX), fds);
    return this.#result(this.#call.sendmsg(fd, this.#arena.msghdr, MSG_NOSIGNAL | MSG_DONTWAIT));
  }

  ppoll(pollfds: Uint8Array, count: number, timeoutMs: number): Result {
    if (timeoutMs < 0) return this.#result(this.#call.ppoll(pollfds, count, null, null));
    this.#timespec[0] = BigInt(Math.floor(timeoutMs / 1000));
    this.#timespec[1] = BigInt(Math.round((timeoutMs % 1000) * 1e6));
    return this.#result(this.#call.ppoll(pollfds, count, this.#timespecBytes, null));
  }

  watchReadable(fd: Fd, ready: () => void): Result | Stop {
    // koffi 3.3.4 ends the process where libuv refuses a descriptor, so epoll is asked first.
    const errno = this.#pollable(fd);
    return errno < 0 ? errno : this.#watches.watch(fd, ready);
  }

  #pollable(fd: Fd): Result {
    // The epoll descriptor could get the number of one that is closed.
    const open = this.fcntl(fd, F_GETFD, 0);
    if (open < 0) return open;
    const epoll = this.#result(this.#call.epoll_create1(O_CLOEXEC));
    if (epoll < 0) return epoll;
    // An event with no bits; large enough for the struct of either CPU.
    const result = this.#result(this.#call.epoll_ctl(epoll, EPOLL_CTL_ADD, fd, new Uint8Array(16)));
    this.close(epoll);
    return result;
  }
}

/**
 * open, fcntl and ioctl are variadic in C. On Linux x86-64 and arm64 a call with fixed arguments passes them alike; on
 * macOS arm64 it would not. `ssize_t` has no name in koffi, so it is int64_t.
 */
const PROTOTYPES = [
  ['open', 'int', 'const char *path, int flags, int mode'],
  ['close', 'int', 'int fd'],
  ['read', 'int64_t', 'int fd, void *into, size_t length'],
  ['write', 'int64_t', 'int fd, const void *from, size_t length'],
  ['pread', 'int64_t', 'int fd, void *into, size_t length, int64_t offset'],
  ['pwrite', 'int64_t', 'int fd, const void *from, size_t length, int64_t offset'],
  ['ioctl', 'int', 'int fd, unsigned long request, void *arg'],
  ['fcntl', 'int', 'int fd, int command, long argument'],
  ['ftruncate', 'int', 'int fd, int64_t size'],
  ['memfd_create', 'int', 'const char *name, unsigned int flags'],
  ['eventfd', 'int', 'unsigned int value, int flags'],
  ['munmap', 'int', 'void *address, size_t length'],
  ['socket', 'int', 'int domain, int type, int protocol'],
  ['socketpair', 'int', 'int domain, int type, int protocol, void *pair'],
  ['bind', 'int', 'int fd, const void *address, unsigned int length'],
  ['listen', 'int', 'int fd, int backlog'],
  ['accept4', 'int', 'int fd, void *address, void *length, int flags'],
  ['connect', 'int', 'int fd, const void *address, unsigned int length'],
  ['recvmsg', 'int64_t', 'int fd, void *message, int flags'],
  ['sendmsg', 'int64_t', 'int fd, const void *message, int flags'],
  ['epoll_create1', 'int', 'int flags'],
  ['epoll_ctl', 'int', 'int epoll, int operation, int fd, void *event'],
  ['ppoll', 'int', 'void *pollfds, unsigned long count, const void *timeout, const void *sigmask'],
] as const;

let loaded: Promise<Syscalls> | undefined;

async function load(): Promise<Syscalls> {
  if (process.platform !== 'linux')
    throw new UnsupportedHere(
      'linux',
      `This needs Linux; the platform here is ${process.platform}`,
      'The embedded guest and host (`vsmmu run --guest reference --host sim`) run everywhere.',
    );
  // Structure layouts and constants in this folder were checked for these two only.
  if (process.arch !== 'x64' && process.arch !== 'arm64')
    throw new UnsupportedHere(
      'known-cpu',
      `This needs an x86-64 or arm64 machine; the one here is ${process.arch}`,
      'The embedded guest and host (`vsmmu run --guest reference --host sim`) run everywhere.',
    );
  let koffi: Koffi;
  try {
    koffi = await import('koffi');
  } catch (cause) {
    throw new UnsupportedHere(
      'koffi',
      'The optional package koffi, through which system calls are made, cannot be loaded',
      'Install it with `npm install koffi` (npm leaves it out with --omit=optional).',
      cause,
    );
  }
  return new KoffiSyscalls(koffi);
}

/**
 * The system calls, loaded once a thread.
 * @throws UnsupportedHere where there is no Linux or no koffi.
 */
export function loadSyscalls(): Promise<Syscalls> {
  loaded ??= load();
  return loaded;
}
