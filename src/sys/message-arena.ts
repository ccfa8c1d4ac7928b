/**
 * The msghdr, iovec and control buffer of `recvmsg` and `sendmsg`, in memory whose address does not move. Layouts are
 * those of 64-bit little-endian Linux; glibc and musl agree on them.
 *
 *     0     msghdr: name, namelen, iov, iovlen, control, controllen, flags
 *     64    iovec: base, len
 *     128   control: one cmsghdr with SCM_RIGHTS
 *     4096  data
 */

import { SCM_MAX_FD, SCM_RIGHTS, SOL_SOCKET } from './linux.ts';

const IOVEC = 64;
const CONTROL = 128;
const DATA = 4096;

const MSG_IOV = 16;
const MSG_IOVLEN = 24;
const MSG_CONTROL = 32;
const MSG_CONTROLLEN = 40;
const MSG_FLAGS = 48;

const CMSG_HEADER = 16;
const align8 = (n: number): number => (n + 7) & ~7;

export const MESSAGE_MAX = 64 * 1024;
export const ARENA_SIZE = DATA + MESSAGE_MAX;

export class MessageArena {
  readonly #address: bigint;
  readonly #view: DataView;
  readonly #data: Uint8Array;

  /** @param memory {@link ARENA_SIZE} zeroed bytes at `address`, which stay there. */
  constructor(memory: ArrayBuffer, address: bigint) {
    this.#address = address;
    this.#view = new DataView(memory);
    this.#data = new Uint8Array(memory, DATA, MESSAGE_MAX);
    this.#view.setBigUint64(MSG_IOV, address + BigInt(IOVEC), true);
    this.#view.setBigUint64(MSG_IOVLEN, 1n, true);
    this.#view.setBigUint64(IOVEC, address + BigInt(DATA), true);
  }

  /** Address of the msghdr. */
  get msghdr(): bigint {
    return this.#address;
  }

  /** Prepares for receiving `length` bytes and as many descriptors as the kernel can pass. */
  prepareReceive(length: number): void {
    this.#prepare(length, CMSG_HEADER + align8(SCM_MAX_FD * 4));
    this.#view.setUint32(CONTROL, 0, true);
  }

  /** Prepares for sending bytes, at most {@link MESSAGE_MAX}, with descriptors, at most 253. */
  prepareSend(bytes: Uint8Array, fds: readonly number[]): void {
    this.#data.set(bytes);
    this.#prepare(bytes.length, fds.length === 0 ? 0 : CMSG_HEADER + align8(fds.length * 4));
    if (fds.length === 0) return;
    this.#view.setBigUint64(CONTROL, BigInt(CMSG_HEADER + fds.length * 4), true);
    this.#view.setInt32(CONTROL + 8, SOL_SOCKET, true);
    this.#view.setInt32(CONTROL + 12, SCM_RIGHTS, true);
    fds.forEach((fd, i) => this.#view.setInt32(CONTROL + CMSG_HEADER + i * 4, fd, true));
  }

  #prepare(length: number, controlLength: number): void {
    this.#view.setBigUint64(IOVEC + 8, BigInt(length), true);
    this.#view.setBigUint64(MSG_CONTROL, controlLength === 0 ? 0n : this.#address + BigInt(CONTROL), true);
    this.#view.setBigUint64(MSG_CONTROLLEN, BigInt(controlLength), true);
    this.#view.setUint32(MSG_FLAGS, 0, true);
  }

  /** The first `length` bytes of what was received; valid until the next call. */
  data(length: number): Uint8Array {
    return this.#data.subarray(0, length);
  }

  /** msg_flags after receiving. */
  get flags(): number {
    return this.#view.getUint32(MSG_FLAGS, true);
  }

  /** Appends the descriptors that were received. */
  takeDescriptors(fds: number[]): void {
    const length = Number(this.#view.getBigUint64(MSG_CONTROLLEN, true));
    let at = 0;
    while (at + CMSG_HEADER <= length) {
      const size = Number(this.#view.getBigUint64(CONTROL + at, true));
      if (size < CMSG_HEADER || at + size > length) return;
      const level = this.#view.getInt32(CONTROL + at + 8, true);
      const type = this.#view.getInt32(CONTROL + at + 12, true);
      if (level === SOL_SOCKET && type === SCM_RIGHTS)
        for (let i = at + CMSG_HEADER; i + 4 <= at + size; i += 4)
          fds.push(this.#view.getInt32(CONTROL + i, true));
      at += align8(size);
    }
  }
}
