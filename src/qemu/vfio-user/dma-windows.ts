/** Which guest memory a VMM has let a device reach. */

export interface Window {
  readonly address: number;
  readonly size: number;
}

export class DmaWindows {
  /** By address; windows do not overlap. */
  #windows: Window[] = [];

  get count(): number {
    return this.#windows.length;
  }

  /** The window that shares a byte with [address, address + size). */
  overlapping(address: number, size: number): Window | undefined {
    return this.#windows.find(
      (window) => window.address < address + size && address < window.address + window.size,
    );
  }

  /** Adds a window that overlaps none. */
  add(address: number, size: number): void {
    this.#windows.push({ address, size });
  }

  /** Removes a window of exactly this address and size. @returns false if there is none. */
  remove(address: number, size: number): boolean {
    const i = this.#windows.findIndex((window) => window.address === address && window.size === size);
    if (i < 0) return false;
    this.#windows.splice(i, 1);
    return true;
  }

  /** Removes and returns all. */
  takeAll(): readonly Window[] {
    const all = this.#windows;
    this.#windows = [];
    return all;
  }
}
