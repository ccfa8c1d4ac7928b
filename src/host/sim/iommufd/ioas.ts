/** An I/O address space: which user memory stands at which IOVA, and which domains show it to devices. */

import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import type { PagingDomain } from '../arm-smmu-v3/domain.ts';
import { HOST_PAGE_SIZE, type HostMemory } from '../host-memory.ts';
import type { UserSpace } from '../user-space.ts';
import { KernelObject } from './objects.ts';

export const U64_MAX = 0xffff_ffff_ffff_ffffn;
const PAGE = BigInt(HOST_PAGE_SIZE);

/** Inclusive at both ends. */
export interface IovaRange {
  readonly start: bigint;
  readonly last: bigint;
}

interface Reserved extends IovaRange {
  readonly owner: object;
}

/** No file here holds memory, so that a mapping of one lasts only as long as nobody needs its pages. */
export type AreaSource = 'user' | 'file';

/** A mapping. Its memory is found and pinned when there is a domain to show it in. */
export interface Area extends IovaRange {
  /** Address of user memory, or offset in a file. */
  readonly userVa: bigint;
  readonly source: AreaSource;
  readonly read: boolean;
  readonly write: boolean;
  pinned: { readonly bytes: Uint8Array; readonly pa: number } | undefined;
}

export interface IoasPorts {
  readonly user: UserSpace;
  readonly memory: HostMemory;
}

export class Ioas extends KernelObject {
  override readonly type = 'ioas';
  /** Option IOMMU_OPTION_HUGE_PAGES. */
  hugePages = true;
  /** Mappings and domain pages are multiples of this. */
  alignment = 1n;
  readonly #ports: IoasPorts;
  /** In order of their addresses. */
  #areas: Area[] = [];
  #reserved: Reserved[] = [];
  /** What IOAS_ALLOW_IOVAS said; everything if empty. */
  #allowed: readonly IovaRange[] = [];
  readonly #domains = new Set<PagingDomain>();

  constructor(ports: IoasPorts) {
    super();
    this.#ports = ports;
  }

  override destroy(): void {
    this.unmapAll();
  }

  get areas(): readonly Area[] {
    return this.#areas;
  }

  get domainCount(): number {
    return this.#domains.size;
  }

  /** The holes between reserved regions. */
  usableRanges(): IovaRange[] {
    const ranges: IovaRange[] = [];
    let start = 0n;
    for (const reserved of this.#reserved.toSorted((a, b) => (a.start < b.start ? -1 : 1))) {
      if (reserved.start > start) ranges.push({ start, last: reserved.start - 1n });
      if (reserved.last >= start) start = reserved.last + 1n;
    }
    if (start <= U64_MAX) ranges.push({ start, last: U64_MAX });
    return ranges;
  }

  /** Limits where the kernel may choose addresses. @returns 0, or EADDRINUSE if a reserved region is among them. */
  allow(ranges: readonly IovaRange[]): Errno {
    if (ranges.some((range) => this.#reserved.some((reserved) => overlap(range, reserved))))
      return ERRNO.EADDRINUSE;
    this.#allowed = ranges;
    return 0;
  }

  /** Keeps a region free of mappings. @returns 0, or EADDRINUSE if something is there; then nothing has changed. */
  reserve(range: IovaRange, owner: object): Errno {
    if (this.#areas.some((area) => overlap(area, range))) return ERRNO.EADDRINUSE;
    if (this.#allowed.some((allowed) => overlap(allowed, range))) return ERRNO.EADDRINUSE;
    this.#reserved.push({ ...range, owner });
    return 0;
  }

  /** Takes back what {@link reserve} did for this owner. */
  unreserve(owner: object): void {
    this.#reserved = this.#reserved.filter((reserved) => reserved.owner !== owner);
  }

  /**
   * Shows all mappings in a domain, now and later.
   * @returns 0; EADDRINUSE if mappings do not fit it; EFAULT if their memory is not there, EINVAL if their file has none.
   */
  addDomain(domain: PagingDomain): Errno {
    const alignment = BigInt(domain.pageSize);
    if (
      alignment > this.alignment &&
      this.#areas.some((area) => ((area.start | (area.last + 1n) | area.userVa) & (alignment - 1n)) !== 0n)
    )
      return ERRNO.EADDRINUSE;
    const beyond = { start: BigInt(domain.apertureLast) + 1n, last: U64_MAX };
    const errno = this.reserve(beyond, domain);
    if (errno !== 0) return errno;
    for (const area of this.#areas) {
      const failed = this.#pin(area);
      if (failed === 0) continue;
      this.unreserve(domain);
      this.#unpinIfUnused();
      return failed;
    }
    if (alignment > this.alignment) this.alignment = alignment;
    this.#domains.add(domain);
    for (const area of this.#areas) this.#show(area, domain);
    return 0;
  }

  removeDomain(domain: PagingDomain): void {
    if (!this.#domains.delete(domain)) return;
    for (const area of this.#areas) domain.unmap(Number(area.start), sizeOf(area));
    this.unreserve(domain);
    this.alignment = 1n;
    for (const { pageSize } of this.#domains)
      if (BigInt(pageSize) > this.alignment) this.alignment = BigInt(pageSize);
    this.#unpinIfUnused();
  }

  /**
   * Maps user memory.
   * @param iova where; undefined to let the kernel choose.
   * @returns the IOVA, or an errno. After an error nothing has changed.
   */
  map(
    iova: bigint | undefined,
    userVa: bigint,
    length: bigint,
    read: boolean,
    write: boolean,
    source: AreaSource = 'user',
  ): bigint | Errno {
    if (length === 0n) return ERRNO.EINVAL;
    if (userVa + length - 1n > U64_MAX) return ERRNO.EOVERFLOW;
    const start = iova ?? this.#choose(userVa, length);
    if (typeof start === 'number') return start;
    const mask = this.alignment - 1n;
    if (((start | length | userVa) & mask) !== 0n) return ERRNO.EINVAL;
    const last = start + length - 1n;
    if (last > U64_MAX) return ERRNO.EOVERFLOW;
    const area: Area = { start, last, userVa, source, read, write, pinned: undefined };
    if (this.#reserved.some((reserved) => overlap(reserved, area))) return ERRNO.EINVAL;
    const at = this.#indexFrom(start);
    if (at < this.#areas.length && overlap(this.#areas[at], area)) return ERRNO.EEXIST;
    if (this.#domains.size > 0) {
      const failed = this.#pin(area);
      if (failed !== 0) return failed;
    }
    this.#areas.splice(at, 0, area);
    for (const domain of this.#domains) this.#show(area, domain);
    return start;
  }

  /**
   * Removes whole mappings inside [iova, iova + length).
   * @returns how many bytes were mapped; or ENOENT if nothing was, or if the range would cut a mapping, in which case
   * mappings before that one are gone.
   */
  unmap(iova: bigint, length: bigint): bigint | Errno {
    if (length === 0n) return ERRNO.EINVAL;
    const last = iova + length - 1n;
    if (last > U64_MAX) return ERRNO.EOVERFLOW;
    let unmapped = 0n;
    for (;;) {
      const area = this.#areas[this.#indexFrom(iova)] as Area | undefined;
      if (area === undefined || area.start > last) break;
      if (area.start < iova || area.last > last) return ERRNO.ENOENT;
      unmapped += area.last - area.start + 1n;
      this.#remove(area);
    }
    return unmapped > 0n ? unmapped : ERRNO.ENOENT;
  }

  /** Removes every mapping. @returns how many bytes were mapped. */
  unmapAll(): bigint {
    let unmapped = 0n;
    while (this.#areas.length > 0) {
      const area = this.#areas[0];
      unmapped += area.last - area.start + 1n;
      this.#remove(area);
    }
    return unmapped;
  }

  /** User address behind [iova, iova + length), if one piece of user memory is mapped there without a hole. */
  userAddress(iova: bigint, length: bigint): bigint | undefined {
    const last = iova + length - 1n;
    const first = this.#areas[this.#indexFrom(iova)] as Area | undefined;
    if (first === undefined || first.start > iova) return undefined;
    const userVa = first.userVa + (iova - first.start);
    for (let at = iova; at <= last;) {
      const area = this.#areas[this.#indexFrom(at)] as Area | undefined;
      if (area === undefined || area.start > at || area.userVa + (at - area.start) !== userVa + (at - iova))
        return undefined;
      at = area.last + 1n;
    }
    return userVa;
  }

  /** Index of the first area that ends at or after the address. */
  #indexFrom(iova: bigint): number {
    let low = 0;
    let high = this.#areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#areas[middle].last < iova) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** First free place for a mapping, aligned as well as its size and user address allow. */
  #choose(userVa: bigint, length: bigint): bigint | Errno {
    if (length > U64_MAX / 2n) return ERRNO.EOVERFLOW;
    let alignment = 1n;
    while (alignment < length) alignment <<= 1n;
    while ((userVa & (alignment - 1n)) !== 0n) alignment >>= 1n;
    if (alignment < this.alignment) return ERRNO.EINVAL;
    const windows = this.#allowed.length > 0 ? this.#allowed : [{ start: PAGE, last: U64_MAX }];
    for (const window of windows) {
      let start = roundUp(window.start < PAGE ? PAGE : window.start, alignment);
      while (start + length - 1n <= window.last) {
        const wanted = { start, last: start + length - 1n };
        const obstacle =
          this.#reserved.find((reserved) => overlap(reserved, wanted)) ??
          this.#areas.find((area) => overlap(area, wanted));
        if (obstacle === undefined) return start;
        start = roundUp(obstacle.last + 1n, alignment);
      }
    }
    return ERRNO.ENOSPC;
  }

  /** @returns 0, or why its memory cannot be used. */
  #pin(area: Area): Errno {
    if (area.pinned !== undefined) return 0;
    if (area.source === 'file') return ERRNO.EINVAL;
    const range = this.#ports.user.find(area.userVa, area.last - area.start + 1n);
    // Pages can be pinned only where the buffer starts at a multiple of 8 of its backing store.
    if (range === undefined || range.bytes.byteOffset % 8 !== 0) return ERRNO.EFAULT;
    const pa = this.#ports.memory.pin(range.bytes) + range.offset;
    area.pinned = { bytes: range.bytes, pa };
    return 0;
  }

  #unpin(area: Area): void {
    if (area.pinned === undefined) return;
    this.#ports.memory.unpin(area.pinned.bytes);
    area.pinned = undefined;
  }

  #unpinIfUnused(): void {
    if (this.#domains.size === 0) for (const area of this.#areas) this.#unpin(area);
  }

  #show(area: Area, domain: PagingDomain): void {
    if (area.pinned === undefined) return;
    const { read, write } = area;
    domain.map(Number(area.start), area.pinned.pa, sizeOf(area), { read, write }, this.hugePages);
  }

  #remove(area: Area): void {
    this.#areas.splice(this.#areas.indexOf(area), 1);
    for (const domain of this.#domains) domain.unmap(Number(area.start), sizeOf(area));
    this.#unpin(area);
  }
}

/** Only areas of domains are asked for their size as a number, and these are below 2^52. */
const sizeOf = (area: IovaRange): number => Number(area.last - area.start) + 1;

const overlap = (a: IovaRange, b: IovaRange): boolean => a.start <= b.last && b.start <= a.last;

const roundUp = (value: bigint, alignment: bigint): bigint =>
  ((value + alignment - 1n) / alignment) * alignment;
