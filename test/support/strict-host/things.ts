/** What a strict host holds: objects of iommufd, and the devices that they serve. */

export type Kind = 'ioas' | 'parent' | 'viommu' | 'nested' | 'vdevice' | 'veventq' | 'device';

export interface Thing {
  readonly kind: Kind;
  /** What this holds a reference on. */
  readonly on: Thing | undefined;
  readonly smmu: number;
  /** vDEVICE: StreamID. */
  readonly vsid?: number;
  readonly device?: StrictDevice;
  /** Nested: whether its Config is stage 1. */
  readonly translates?: boolean;
  /** vEVENTQ: its descriptor is open. */
  open?: boolean;
}

export class StrictDevice {
  readonly path: string;
  readonly smmu: number;
  id = 0;
  attached: Thing | undefined;
  /** StreamID that the kernel noted at the last nested attach. */
  noted: number | undefined;
  /** What it was attached to, in order: 'none', 'abort', 'bypass', 'translate <S1ContextPtr>'. */
  readonly history: string[] = [];

  constructor(path: string, smmu: number) {
    this.path = path;
    this.smmu = smmu;
  }
}

/** A guest's STE over a vIOMMU. */
export class Nested implements Thing {
  readonly kind = 'nested';
  readonly on: Thing;
  readonly smmu: number;
  readonly translates: boolean;
  readonly ste: Uint32Array;

  constructor(on: Thing, smmu: number, ste: Uint32Array) {
    this.on = on;
    this.smmu = smmu;
    this.ste = ste;
    this.translates = ((ste[0] >>> 1) & 7) === 5;
  }
}

/** What a device is attached to, in a word or two. */
export function describe(table: Thing | undefined): string {
  if (!(table instanceof Nested)) return table === undefined ? 'none' : table.kind;
  if (table.translates) return `translate ${(table.ste[0] & ~0x3f).toString(16)}`;
  return ((table.ste[0] >>> 1) & 7) === 4 ? 'bypass' : 'abort';
}
