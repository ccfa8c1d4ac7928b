/** A vfio-user client's messages, written from QEMU's structures as offsets, and a device that records what it is asked. */

import type { DeviceLink, DmaRange, Errno, VfioUserDevice } from '../../src/qemu/vfio-user/device.ts';
import { type SessionPort, VfioUserSession } from '../../src/qemu/vfio-user/session.ts';
import { type Violation, violationText } from '../../src/qemu/vfio-user/violation.ts';

/** Little-endian numbers one after another: [width in bytes, value]. */
export function pack(...numbers: readonly (readonly [number, number | bigint])[]): Uint8Array {
  const bytes: number[] = [];
  for (const [width, value] of numbers)
    for (let i = 0; i < width; i++) bytes.push(Number((BigInt(value) >> BigInt(8 * i)) & 0xffn));
  return Uint8Array.from(bytes);
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** A message with a right size in its header, unless told otherwise. */
export function message(
  command: number,
  payload: Uint8Array = new Uint8Array(0),
  { id = 7, flags = 0, error = 0, size = 16 + payload.length } = {},
): Uint8Array {
  return concat(pack([2, id], [2, command], [4, size], [4, flags], [4, error]), payload);
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

/** As QEMU 11.1 asks. */
export const QEMU_CAPABILITIES =
  '{"capabilities": {"max_msg_fds": 16, "write_multiple": true, "max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "migration": {"pgsize": 4096, "max_bitmap_size": 268435456}}}\0';

export const version = (json = QEMU_CAPABILITIES, major = 0, minor = 0): Uint8Array =>
  message(1, concat(pack([2, major], [2, minor]), text(json)), { id: 0 });

export const dmaMap = (
  address: number | bigint,
  size: number | bigint,
  { flags = 3, offset = 0, argsz = 32 }: { flags?: number; offset?: number | bigint; argsz?: number } = {},
): Uint8Array => message(2, pack([4, argsz], [4, flags], [8, offset], [8, address], [8, size]));

export const dmaUnmap = (
  address: number | bigint,
  size: number | bigint,
  { flags = 0, argsz = 24 } = {},
): Uint8Array => message(3, pack([4, argsz], [4, flags], [8, address], [8, size]));

export const getInfo = (argsz = 16): Uint8Array => message(4, pack([4, argsz], [4, 0], [4, 0], [4, 0]));

export const getRegionInfo = (index: number, argsz = 32): Uint8Array =>
  message(5, pack([4, argsz], [4, 0], [4, index], [4, 0], [8, 0], [8, 0]));

export const getIrqInfo = (index: number, argsz = 16): Uint8Array =>
  message(7, pack([4, argsz], [4, 0], [4, index], [4, 0]));

export const setIrqs = (
  flags: number,
  index: number,
  start: number,
  count: number,
  tail: readonly number[] = [],
): Uint8Array =>
  message(
    8,
    concat(
      pack([4, 20 + tail.length], [4, flags], [4, index], [4, start], [4, count]),
      Uint8Array.from(tail),
    ),
  );

export const regionRead = (region: number, offset: number | bigint, count: number): Uint8Array =>
  message(9, pack([8, offset], [4, region], [4, count]));

export const regionWrite = (
  region: number,
  offset: number | bigint,
  data: readonly number[],
  { count = data.length, flags = 0 } = {},
): Uint8Array =>
  message(10, concat(pack([8, offset], [4, region], [4, count]), Uint8Array.from(data)), { flags });

export const reset = (): Uint8Array => message(13);

/** A reply as it came out, taken apart. */
export interface Answer {
  readonly id: number;
  readonly command: number;
  readonly flags: number;
  readonly error: number;
  readonly payload: Uint8Array;
}

/** Takes a stream of whole messages apart. */
export function answers(stream: Uint8Array): Answer[] {
  const found: Answer[] = [];
  const view = new DataView(stream.buffer, stream.byteOffset, stream.length);
  for (let at = 0; at < stream.length;) {
    const size = view.getUint32(at + 4, true);
    if (size < 16 || at + size > stream.length) throw new Error(`A message of ${size} bytes at ${at}`);
    found.push({
      id: view.getUint16(at, true),
      command: view.getUint16(at + 2, true),
      flags: view.getUint32(at + 8, true),
      error: view.getUint32(at + 12, true),
      payload: stream.slice(at + 16, at + size),
    });
    at += size;
  }
  return found;
}

/** BAR 0 of 4 KiB, a configuration space of 256 bytes, INTx and 4 MSIs. It checks that it is asked nothing outside. */
export class RecordingDevice implements VfioUserDevice {
  readonly name = 'recorder';
  readonly regions = [
    { size: 0x1000, readable: true, writable: true },
    ...Array.from({ length: 5 }, () => ({ size: 0, readable: false, writable: false })),
    { size: 0x100, readable: true, writable: false },
    { size: 0x100, readable: true, writable: true },
    { size: 0, readable: false, writable: false },
  ];
  readonly irqs = [
    { count: 1, flags: 7 },
    { count: 4, flags: 9 },
    { count: 0, flags: 9 },
    { count: 0, flags: 1 },
    { count: 0, flags: 1 },
  ];
  readonly bar = new Uint8Array(0x1000);
  readonly calls: string[] = [];
  readonly windows = new Map<number, DmaRange>();
  link: DeviceLink | undefined;
  errno: Errno = 0;

  connected(link: DeviceLink): void {
    this.link = link;
    this.calls.push('connected');
  }

  #inside(region: number, offset: number, size: number): void {
    const limit = this.regions[region]?.size ?? 0;
    if (!(offset >= 0 && size > 0 && offset + size <= limit))
      throw new Error(`asked for [${offset}, +${size}) of region ${region}`);
  }

  regionRead(region: number, offset: number, into: Uint8Array): Errno {
    this.#inside(region, offset, into.length);
    this.calls.push(`read ${region} ${offset} ${into.length}`);
    if (region === 0) into.set(this.bar.subarray(offset, offset + into.length));
    return this.errno;
  }

  regionWrite(region: number, offset: number, from: Uint8Array): Errno {
    this.#inside(region, offset, from.length);
    this.calls.push(`write ${region} ${offset} ${[...from].join(',')}`);
    if (region === 0) this.bar.set(from, offset);
    return this.errno;
  }

  dmaMap(range: DmaRange): Errno {
    this.calls.push(`map ${range.address} ${range.size} fd ${range.fd}`);
    if (this.errno === 0) this.windows.set(range.address, range);
    return this.errno;
  }

  dmaUnmap(address: number, size: number): void {
    this.calls.push(`unmap ${address} ${size}`);
    if (!this.windows.delete(address)) throw new Error('unmapped what was not mapped');
  }

  reset(): void {
    this.calls.push('reset');
  }

  disconnected(): void {
    this.calls.push('disconnected');
    this.link = undefined;
  }
}

/** A session without a socket, which counts descriptors. */
export class Bench implements SessionPort {
  readonly device: RecordingDevice;
  readonly session: VfioUserSession;
  readonly violations: Violation[] = [];
  readonly openFds = new Set<number>();
  readonly signals: number[] = [];
  sentFds: number[] = [];
  #sent: Uint8Array[] = [];
  #nextFd = 100;

  constructor(device = new RecordingDevice()) {
    this.device = device;
    this.session = new VfioUserSession(device, this, (violation) => this.violations.push(violation));
  }

  send(bytes: Uint8Array, fds: readonly number[]): void {
    this.#sent.push(bytes.slice());
    this.sentFds.push(...fds);
  }

  close(fd: number): void {
    if (!this.openFds.delete(fd)) throw new Error(`closed ${fd}, which was not open`);
  }

  signal(fd: number): void {
    if (!this.openFds.has(fd)) throw new Error(`signalled ${fd}, which was not open`);
    this.signals.push(fd);
  }

  /** Descriptors as the kernel would have received them. */
  fds(count: number): number[] {
    return Array.from({ length: count }, () => {
      this.openFds.add(++this.#nextFd);
      return this.#nextFd;
    });
  }

  /** What the session sent since the last call. */
  sent(): Answer[] {
    const stream = concat(...this.#sent);
    this.#sent = [];
    return answers(stream);
  }

  /** Gives the session a message and returns the only reply. */
  ask(bytes: Uint8Array, fds: readonly number[] = []): Answer {
    this.session.receive(bytes, fds);
    const replies = this.sent();
    if (replies.length !== 1) throw new Error(`${replies.length} replies`);
    return replies[0];
  }

  /** After the handshake. */
  static ready(device?: RecordingDevice): Bench {
    const bench = new Bench(device);
    bench.ask(version());
    bench.device.calls.length = 0;
    return bench;
  }

  get texts(): string[] {
    return this.violations.map(violationText);
  }
}
