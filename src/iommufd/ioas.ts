import type { Iommufd } from './iommufd.ts';
import type { UserMemory } from './kernel.ts';
import {
  IOMMU_IOAS_ALLOC,
  IOMMU_IOAS_MAP,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  IOMMU_IOAS_UNMAP,
} from './uapi/iommufd.ts';

/** An I/O address space: for a vSMMU, the guest-physical addresses. */
export class Ioas {
  readonly id: number;
  readonly #iommufd: Iommufd;

  private constructor(iommufd: Iommufd, id: number) {
    this.#iommufd = iommufd;
    this.id = id;
  }

  /** @throws HostError */
  static alloc(iommufd: Iommufd): Ioas {
    return new Ioas(iommufd, iommufd.caller.ioctl(iommufd.fd, IOMMU_IOAS_ALLOC, {}).out_ioas_id);
  }

  /**
   * Maps memory at an I/O address; every page table made from this IOAS has it when this returns.
   * @param iova address and length are multiples of the page size.
   * @throws HostError EINVAL in a reserved range, EEXIST over another mapping, ENOMEM if it cannot be pinned.
   */
  map(iova: bigint, memory: UserMemory, writable = true): void {
    this.#iommufd.caller.ioctl(this.#iommufd.fd, IOMMU_IOAS_MAP, {
      flags: IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | (writable ? IOMMU_IOAS_MAP_WRITEABLE : 0),
      ioas_id: this.id,
      user_va: memory.address,
      length: BigInt(memory.bytes.length),
      iova,
    });
  }

  /** Unmaps whole mappings. @throws HostError ENOENT if the range would cut one or holds none. */
  unmap(iova: bigint, length: bigint): void {
    this.#iommufd.caller.ioctl(this.#iommufd.fd, IOMMU_IOAS_UNMAP, { ioas_id: this.id, iova, length });
  }

  /** @throws HostError EBUSY while a page table is made from it. */
  destroy(): void {
    this.#iommufd.destroy(this.id);
  }
}
