/** Numbers in messages, as tables of offsets. The protocol uses the host's byte order; the hosts we run on are little-endian. */

const HIGH = 0x1_0000_0000;

/** An unsigned number at a fixed place. */
export class WireField {
  readonly offset: number;
  readonly width: 2 | 4 | 8;

  constructor(offset: number, width: 2 | 4 | 8) {
    this.offset = offset;
    this.width = width;
  }

  /**
   * The value in the structure that starts at `at`. A 64-bit value is exact up to 2^53 and never becomes smaller than
   * that above it, so comparing it with a limit below 2^53 is safe.
   */
  get(view: DataView, at = 0): number {
    const i = at + this.offset;
    if (this.width === 2) return view.getUint16(i, true);
    const lo = view.getUint32(i, true);
    return this.width === 4 ? lo : view.getUint32(i + 4, true) * HIGH + lo;
  }

  /** Stores a value that fits; a 64-bit one is at most 2^53. */
  set(view: DataView, value: number, at = 0): void {
    const i = at + this.offset;
    if (this.width === 2) view.setUint16(i, value, true);
    else view.setUint32(i, value % HIGH, true);
    if (this.width === 8) view.setUint32(i + 4, Math.floor(value / HIGH), true);
  }
}

export const u16 = (offset: number): WireField => new WireField(offset, 2);
export const u32 = (offset: number): WireField => new WireField(offset, 4);
export const u64 = (offset: number): WireField => new WireField(offset, 8);

export type WireLayout = Readonly<Record<string, WireField>>;
