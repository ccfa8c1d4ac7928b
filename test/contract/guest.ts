/** A guest's RAM with a context descriptor and stage 1 tables in it, built by hand: 4 KiB granule, 39-bit addresses. */

/** Guest RAM: from here, 4 MiB unless said otherwise. */
export const RAM_BASE = 0x4000_0000;
export const RAM_SIZE = 0x40_0000;

/** Where things are in guest RAM. */
export const GUEST = {
  Cd: 0x4000_0000,
  Level1: 0x4000_1000,
  Level2: 0x4000_2000,
  Level3: 0x4000_3000,
  /** Two data pages. */
  D0: 0x4010_0000,
  D1: 0x4010_1000,
} as const;

const ASID = 5n;
/** First address of the 2 MiB that Level3 maps. */
const IOVA_BASE = 0x1000_0000;
/** An IPA that stage 2 does not map. */
export const IPA_HOLE = 0x3_0000_0000n;

const AF = 1n << 10n;
/** Not global: belongs to the ASID. */
const NG = 1n << 11n;
const PAGE = 0b11n;
const TABLE = 0b11n;
/** AP[2:1]: unprivileged too; read-only. */
const AP_RW = 0b01n << 6n;
const AP_RO = 0b11n << 6n;

/** CD: T0SZ=25, TG0=4K, cacheable walks, EPD1, V, IPS, AA64, R, A, ASID. */
const CD0 =
  25n |
  (1n << 8n) |
  (1n << 10n) |
  (3n << 12n) |
  (1n << 30n) |
  (1n << 31n) |
  (4n << 32n) |
  (1n << 41n) |
  (1n << 45n) |
  (1n << 46n) |
  (ASID << 48n);

export class Guest {
  readonly ram: Uint8Array;
  readonly #view: DataView;

  /** @param ram zeros, at least 2 MiB of them. */
  constructor(ram: Uint8Array) {
    this.ram = ram;
    this.#view = new DataView(ram.buffer, ram.byteOffset, ram.length);
    this.store(GUEST.Cd, CD0);
    this.store(GUEST.Cd + 8, BigInt(GUEST.Level1));
    this.store(GUEST.Cd + 24, 0xffn);
    // 0x10000000 >> 30 is 0; >> 21 is 128.
    this.store(GUEST.Level1, BigInt(GUEST.Level2) | TABLE);
    this.store(GUEST.Level2 + 128 * 8, BigInt(GUEST.Level3) | TABLE);
    this.map(0x1000_0000, BigInt(GUEST.D0));
    this.map(0x1000_6000, BigInt(GUEST.D1));
    this.setPage(0x1000_2000, BigInt(GUEST.D0) | PAGE | AF | AP_RO);
    this.setPage(0x1000_3000, BigInt(GUEST.D0) | PAGE | AP_RW);
    this.map(0x1000_4000, IPA_HOLE);
    // Beyond 44 bits.
    this.map(0x1000_5000, 0x8000_0000_0000n);
  }

  /** Stores a 64-bit word at an IPA. */
  store(ipa: number, value: bigint): void {
    this.#view.setBigUint64(ipa - RAM_BASE, value, true);
  }

  load32(ipa: number): number {
    return this.#view.getUint32(ipa - RAM_BASE, true);
  }

  /** Maps one page of the 2 MiB from IOVA_BASE, writable. */
  map(iova: number, ipa: bigint): void {
    this.setPage(iova, ipa | PAGE | AF | NG | AP_RW);
  }

  setPage(iova: number, descriptor: bigint): void {
    this.store(GUEST.Level3 + ((iova - IOVA_BASE) / 4096) * 8, descriptor);
  }

  setCdValid(valid: boolean): void {
    this.store(GUEST.Cd, valid ? CD0 : CD0 & ~(1n << 31n));
  }
}

/** Words 0 and 1 of STEs as a guest's driver writes them. */
export const STE = {
  /** V, Config=S1, S1ContextPtr; S1CIR, S1COR write-back, S1CSH inner. */
  S1: [1n | (5n << 1n) | BigInt(GUEST.Cd), (1n << 2n) | (1n << 4n) | (3n << 6n)],
  Abort: [1n, 0n],
  Bypass: [1n | (4n << 1n), 0n],
} as const;
