/**
 * The system calls that Node does not offer, or not without waiting for its event loop. Everything here is synchronous,
 * so that a worker thread can own its descriptors with one blocking `ppoll`. Nothing throws: a result below 0 is a
 * negative Linux errno. Descriptors made here are close-on-exec.
 */

export type Fd = number;

/** A count, a descriptor or 0; or a negative errno. */
export type Result = number;

/** What one `recvmsg` brought, besides bytes. */
export interface Received {
  /** Descriptors, in the order sent. They belong to the caller. */
  readonly fds: Fd[];
  /** True if the kernel had to drop descriptors: the table of this process is full. */
  truncated: boolean;
}

/** Stops something that goes on by itself. Stopping twice is harmless. */
export interface Stop {
  stop(): void;
}

export interface Syscalls {
  /** Opens a path; `flags` without O_CLOEXEC, which is always set. */
  open(path: string, flags: number): Result;
  close(fd: Fd): Result;
  read(fd: Fd, into: Uint8Array): Result;
  write(fd: Fd, from: Uint8Array): Result;
  pread(fd: Fd, into: Uint8Array, offset: number): Result;
  pwrite(fd: Fd, from: Uint8Array, offset: number): Result;
  /** `arg` is read and written in place; the caller makes it as large as the request says. */
  ioctl(fd: Fd, request: number, arg: Uint8Array): Result;
  fcntl(fd: Fd, command: number, argument: number): Result;
  ftruncate(fd: Fd, size: number): Result;

  /** An anonymous file that can be sealed. */
  memfd_create(name: string): Result;
  /** An eventfd with the value 0 that does not block. */
  eventfd(): Result;
  /** @returns the address, or a negative errno as a bigint. An address is never negative. */
  mmap(address: bigint, length: number, prot: number, flags: number, fd: Fd, offset: number): bigint;
  munmap(address: bigint, length: number): Result;
  /**
   * Memory at an address, at most 4 GiB of it (Node 20 aborts beyond that). The caller keeps it mapped for as long as
   * the view can be reached: {@link import('./mapping.ts').Mapping} does that.
   */
  view(address: bigint, length: number): ArrayBuffer;

  /**
   * Where bytes are in memory. It stays true for as long as they can be reached: the memory of an ArrayBuffer does not
   * move, unless it is resized or transferred.
   */
  address(bytes: Uint8Array): bigint;

  /** A UNIX stream socket that does not block. */
  socket(): Result;
  /** A connected pair of such sockets. */
  socketpair(): Result | readonly [Fd, Fd];
  /** `address` is a sockaddr_un: see {@link import('./unix-address.ts').unixAddress}. */
  bind(fd: Fd, address: Uint8Array): Result;
  listen(fd: Fd, backlog: number): Result;
  /** @returns the connection, which does not block. */
  accept4(fd: Fd): Result;
  connect(fd: Fd, address: Uint8Array): Result;
  /**
   * Receives at most 64 KiB of a stream, and the descriptors that came with these bytes. Never waits.
   * @returns bytes, 0 at the end of the stream; `received` is filled in either case.
   */
  recvmsg(fd: Fd, into: Uint8Array, received: Received): Result;
  /** Sends at most 64 KiB, and at most 253 descriptors with their first byte. Never waits, raises no SIGPIPE. */
  sendmsg(fd: Fd, from: Uint8Array, fds: readonly Fd[]): Result;

  /**
   * Waits until one of the descriptors is ready.
   * @param pollfds 8 bytes each: int fd, short events, short revents; a negative fd is skipped.
   * @param timeoutMs how long; below 0 for ever.
   */
  ppoll(pollfds: Uint8Array, count: number, timeoutMs: number): Result;
  /**
   * Calls back from Node's event loop, again and again while the descriptor is readable, at its end or in error. For
   * threads that live in that loop; it keeps them alive. Stop it before the descriptor is closed.
   * @returns a negative errno for what cannot be waited for: EBADF, or EPERM for a regular file.
   */
  watchReadable(fd: Fd, ready: () => void): Result | Stop;
}

/** Size of one pollfd. */
export const POLLFD_SIZE = 8;
