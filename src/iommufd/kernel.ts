/**
 * The Kernel port: the few system calls through which everything above reaches a Linux host. It is byte-exact, so one
 * client serves the embedded host and `/dev/iommu`, and the same contract cases run on both.
 */

export type Fd = number;

/** 0, or a positive Linux errno number. */
export type Errno = number;

/** Memory of this process that the kernel may be told about by address. */
export interface UserMemory {
  /** The 64-bit address that a uptr field carries; valid until released. */
  readonly address: bigint;
  readonly bytes: Uint8Array;
  /** Forgets the address. The bytes must not be mapped in an IOAS any more. Releasing twice is harmless. */
  release(): void;
}

/** Stops a watch. Stopping twice is harmless. */
export interface Watch {
  stop(): void;
}

export interface Kernel {
  /** Opens a path for reading and writing, close-on-exec. @returns the descriptor, or a negative errno. */
  open(path: string): Fd;
  close(fd: Fd): Errno;
  /**
   * @param request the ioctl number, such as 0x3b81.
   * @param arg the uAPI structure, little-endian, at least `size`/`argsz` bytes; outputs are written back into it.
   */
  ioctl(fd: Fd, request: number, arg: Uint8Array): Errno;
  /** @returns the number of bytes read, or a negative errno. */
  read(fd: Fd, into: Uint8Array): number;
  /** Answers to a FAULT_QUEUE, counts to an eventfd. @returns the number of bytes taken, or a negative errno. */
  write(fd: Fd, from: Uint8Array): number;
  /** VFIO regions: reads at an offset of the descriptor. @returns bytes, or a negative errno. */
  pread(fd: Fd, into: Uint8Array, offset: number): number;
  /** VFIO regions: writes at an offset of the descriptor. @returns bytes, or a negative errno. */
  pwrite(fd: Fd, from: Uint8Array, offset: number): number;
  /** A new eventfd, initial value 0, close-on-exec, non-blocking. @returns the descriptor, or a negative errno. */
  eventfd(): Fd;
  /** Calls back, from the owner's event loop and never from inside another call, whenever the descriptor is readable. */
  onReadable(fd: Fd, callback: () => void): Watch;
  /** Gives bytes an address that ioctl arguments can carry. The bytes stay alive and in place until released. */
  userMemory(bytes: Uint8Array): UserMemory;
}
