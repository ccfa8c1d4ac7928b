/**
 * Numbers of the Linux ABI, as x86-64 and arm64 share them (asm-generic). Some open flags differ between the two and are
 * left out on purpose: O_DIRECTORY, O_NOFOLLOW, O_DIRECT, O_LARGEFILE.
 */

export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;

export const PROT_READ = 1;
export const PROT_WRITE = 2;

export const MAP_SHARED = 0x01;
export const MAP_PRIVATE = 0x02;
export const MAP_FIXED = 0x10;
export const MAP_ANONYMOUS = 0x20;
export const MAP_NORESERVE = 0x4000;

export const MFD_CLOEXEC = 1;
export const MFD_ALLOW_SEALING = 2;

export const F_GETFD = 1;
export const F_GETFL = 3;
export const F_ADD_SEALS = 1033;
export const F_GET_SEALS = 1034;
export const F_SEAL_SHRINK = 2;
export const F_SEAL_GROW = 4;
export const FD_CLOEXEC = 1;

export const EFD_NONBLOCK = 0o4000;
export const EFD_CLOEXEC = 0o2000000;

export const AF_UNIX = 1;
export const SOCK_STREAM = 1;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SCM_RIGHTS = 1;
/** The most descriptors that the kernel passes in one message. */
export const SCM_MAX_FD = 253;
export const MSG_CTRUNC = 0x8;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;
export const MSG_CMSG_CLOEXEC = 0x4000_0000;

export const EPOLL_CTL_ADD = 1;

export const POLLIN = 0x1;
export const POLLOUT = 0x4;
export const POLLHUP = 0x10;
export const POLLNVAL = 0x20;
