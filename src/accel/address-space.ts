/** Guest RAM as I/O address space of one `/dev/iommu`, shared by all vSMMUs of a machine. */

import { Caller } from '../iommufd/call.ts';
import { HostError } from '../iommufd/errors.ts';
import { Ioas } from '../iommufd/ioas.ts';
import { Iommufd } from '../iommufd/iommufd.ts';
import type { Kernel, UserMemory } from '../iommufd/kernel.ts';

/** Where the host maps its interrupt doorbells for devices (arm-smmu-v3's SW_MSI window): no RAM may be here. */
export const MSI_WINDOW = { start: 0x0800_0000, size: 0x10_0000 } as const;

/** Size and alignment of the page of zeros: a page or more on every host. */
export const TRIPWIRE_PAGE_SIZE = 0x1_0000;
/** Where it may be, best first: beside the MSI window, where machines have no RAM, or below 4 GiB. */
const TRIPWIRE_PLACES = [0x0810_0000, 0x07ff_0000, 0xffff_0000, 0x0001_0000];

/** Who has the address space open. */
export interface SpaceUser {
  readonly name: string;
  /** Whether a device of this iommufd is behind the physical SMMU that this user stands for. */
  wouldTake(deviceId: number): boolean;
  /** RAM comes to where the page of zeros is: nothing may point there any more when this returns. */
  tripwireMoved(): void;
  /** Whether anything points to the page of zeros at this address. */
  usesTripwire(gpa: number): boolean;
}

type Overlaps = (start: number, size: number) => boolean;

interface Ram {
  readonly gpa: number;
  readonly bytes: Uint8Array;
  readonly writable: boolean;
  memory: UserMemory | undefined;
}

/**
 * Opens `/dev/iommu` for its first user and closes it after the last; the IOAS and its mappings live in between. RAM
 * may be added and removed at any time.
 */
export class AddressSpace {
  readonly caller: Caller;
  readonly #ram: Ram[] = [];
  readonly #users = new Set<SpaceUser>();
  #iommufd: Iommufd | undefined;
  #ioas: Ioas | undefined;
  #tripwireGpa: number | undefined = TRIPWIRE_PLACES[0];
  /** Pages of zeros that are mapped, by address: one, but for the moment in which it moves. */
  readonly #zeros = new Map<number, UserMemory>();

  constructor(kernel: Kernel) {
    this.caller = new Caller(kernel);
  }

  /** The context of all objects. A user of the address space has it open. */
  get iommufd(): Iommufd {
    if (this.#iommufd === undefined) throw new Error('The address space has no user');
    return this.#iommufd;
  }

  /** Id of the IOAS, if there is one now. */
  get ioasId(): number | undefined {
    return this.#ioas?.id;
  }

  /**
   * Adds RAM, and maps it if devices are there.
   * @param gpa guest-physical address; it and the length are multiples of the host's page size.
   * @throws RangeError if it touches the MSI window or other RAM. @throws HostError if it cannot be mapped; it is then
   * not added.
   */
  addRam(gpa: number, bytes: Uint8Array, writable = true): void {
    const overlaps: Overlaps = (start, size) => gpa < start + size && start < gpa + bytes.length;
    if (overlaps(MSI_WINDOW.start, MSI_WINDOW.size))
      throw new RangeError(
        `RAM at 0x${gpa.toString(16)} touches 0x8000000..0x80fffff, where the host maps interrupt doorbells`,
      );
    if (this.#ram.some((other) => overlaps(other.gpa, other.bytes.length)))
      throw new RangeError(`RAM at 0x${gpa.toString(16)} overlaps other RAM`);
    this.#vacate(overlaps);
    const ram: Ram = { gpa, bytes, writable, memory: undefined };
    if (this.#ioas !== undefined) this.#map(this.#ioas, ram);
    this.#ram.push(ram);
  }

  /** Guest RAM itself, `size` bytes of it; undefined if they are not in one piece that was added. */
  ram(gpa: number, size: number): Uint8Array | undefined {
    const ram = this.#ram.find((piece) => gpa >= piece.gpa && gpa + size <= piece.gpa + piece.bytes.length);
    return ram?.bytes.subarray(gpa - ram.gpa, gpa - ram.gpa + size);
  }

  /** Removes RAM that was added with this address, and unmaps it. @throws HostError; it is then still mapped. */
  removeRam(gpa: number): void {
    const at = this.#ram.findIndex((ram) => ram.gpa === gpa);
    if (at < 0) return;
    const ram = this.#ram[at];
    if (ram.memory !== undefined) {
      this.#ioas?.unmap(BigInt(ram.gpa), BigInt(ram.bytes.length));
      ram.memory.release();
    }
    this.#ram.splice(at, 1);
  }

  /** Guest-physical address of the page of zeros, mapped or not; undefined if RAM is everywhere. */
  get tripwireGpa(): number | undefined {
    return this.#tripwireGpa;
  }

  /** Makes sure that the page of zeros is mapped, for reading only. @throws HostError */
  requireTripwire(): void {
    const gpa = this.#tripwireGpa;
    if (gpa === undefined || this.#zeros.has(gpa)) return;
    const { kernel } = this.caller;
    const block = new Uint8Array(2 * TRIPWIRE_PAGE_SIZE);
    // What is mapped has to begin at a page of the host, of which the bytes know nothing.
    const whole = kernel.userMemory(block);
    const skip = Number(-whole.address & BigInt(TRIPWIRE_PAGE_SIZE - 1));
    whole.release();
    const memory = kernel.userMemory(block.subarray(skip, skip + TRIPWIRE_PAGE_SIZE));
    try {
      this.requireIoas().map(BigInt(gpa), memory, false);
    } catch (error) {
      memory.release();
      throw error;
    }
    this.#zeros.set(gpa, memory);
  }

  /**
   * Moves the page of zeros out of a range where RAM is about to be.
   * @throws HostError if something still points there: RAM in its place would be taken for a context descriptor.
   */
  #vacate(overlaps: Overlaps): void {
    const inTheWay = (gpa: number): boolean => overlaps(gpa, TRIPWIRE_PAGE_SIZE);
    if (this.#tripwireGpa !== undefined && inTheWay(this.#tripwireGpa)) {
      this.#tripwireGpa = TRIPWIRE_PLACES.find((place) => !inTheWay(place) && !this.#hasRam(place));
      for (const user of this.#users) user.tripwireMoved();
    }
    for (const [gpa, memory] of this.#zeros) {
      if (!inTheWay(gpa)) continue;
      for (const user of this.#users)
        if (user.usesTripwire(gpa))
          throw new HostError('EBUSY', 'addRam', 'a stream could not be taken off the page of zeros there.');
      this.#ioas?.unmap(BigInt(gpa), BigInt(TRIPWIRE_PAGE_SIZE));
      memory.release();
      this.#zeros.delete(gpa);
    }
  }

  #hasRam(place: number): boolean {
    return this.#ram.some(({ gpa, bytes }) => gpa < place + TRIPWIRE_PAGE_SIZE && place < gpa + bytes.length);
  }

  /** Makes sure that `/dev/iommu` is open for this user. @throws HostError */
  open(user: SpaceUser): Iommufd {
    this.#iommufd ??= Iommufd.open(this.caller.kernel, this.caller);
    this.#users.add(user);
    return this.#iommufd;
  }

  /** Who has it open. */
  get users(): readonly SpaceUser[] {
    return [...this.#users];
  }

  /** Whether nobody but this user has it open. */
  isLastUser(user: SpaceUser): boolean {
    return this.#users.size === 1 && this.#users.has(user);
  }

  /** Makes sure that there is an IOAS with all RAM in it. @throws HostError; what could be mapped is. */
  requireIoas(): Ioas {
    this.#ioas ??= Ioas.alloc(this.iommufd);
    for (const ram of this.#ram) this.#map(this.#ioas, ram);
    return this.#ioas;
  }

  #map(ioas: Ioas, ram: Ram): void {
    if (ram.memory !== undefined) return;
    const memory = this.caller.kernel.userMemory(ram.bytes);
    try {
      ioas.map(BigInt(ram.gpa), memory, ram.writable);
    } catch (error) {
      memory.release();
      throw error;
    }
    ram.memory = memory;
  }

  /**
   * Ends a user's use. After the last user, who has nothing left on it, the IOAS is destroyed and `/dev/iommu` closed;
   * closing frees in the kernel whatever could not be destroyed one by one.
   */
  close(user: SpaceUser): void {
    if (!this.#users.delete(user) || this.#users.size > 0) return;
    try {
      this.#ioas?.destroy();
    } catch (error) {
      if (!(error instanceof HostError)) throw error;
    }
    this.#iommufd?.close();
    for (const ram of this.#ram) {
      ram.memory?.release();
      ram.memory = undefined;
    }
    for (const memory of this.#zeros.values()) memory.release();
    this.#zeros.clear();
    this.#ioas = undefined;
    this.#iommufd = undefined;
  }
}
