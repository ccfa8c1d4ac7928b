/** Objects of one iommufd context, and their ids. */

/** What an id can stand for. */
export type ObjectType =
  'device' | 'ioas' | 'hwpt_paging' | 'hwpt_nested' | 'fault' | 'viommu' | 'vdevice' | 'veventq';

export abstract class KernelObject {
  /** 0 until the object table has given it one. */
  id = 0;
  /** How many others hold it; while there is one, DESTROY is refused with EBUSY. */
  users = 0;
  abstract readonly type: ObjectType;

  /** Called once, when it has left the table and nobody holds it: lets go of what it held. */
  abstract destroy(): void;
}

export class ObjectTable {
  readonly #objects = new Map<number, KernelObject>();
  readonly #tombstones = new Set<number>();
  /** No id below this is free. */
  #lowest = 1;

  /** Gives the object the lowest free id. */
  add(object: KernelObject): void {
    let id = this.#lowest;
    while (this.#objects.has(id) || this.#tombstones.has(id)) id += 1;
    this.#lowest = id + 1;
    object.id = id;
    this.#objects.set(id, object);
  }

  get(id: number): KernelObject | undefined {
    return this.#objects.get(id);
  }

  /** Takes the object out and destroys it. Nobody holds it. */
  destroy(object: KernelObject): void {
    this.#objects.delete(object.id);
    this.#lowest = Math.min(this.#lowest, object.id);
    object.destroy();
  }

  /** As {@link destroy}, but its id is never given out again. */
  bury(object: KernelObject): void {
    this.#objects.delete(object.id);
    this.#tombstones.add(object.id);
    object.destroy();
  }

  /** Destroys everything, leaves first. */
  destroyAll(): void {
    let progress = true;
    while (progress) {
      progress = false;
      for (const object of this.#objects.values()) {
        if (object.users > 0) continue;
        this.destroy(object);
        progress = true;
      }
    }
  }

  /** In the order of their making. */
  all(): IterableIterator<KernelObject> {
    return this.#objects.values();
  }

  get size(): number {
    return this.#objects.size;
  }
}
