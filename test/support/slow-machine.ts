/**
 * What the second SMMU translation works on: slow and as plain as the architecture, with bigint, recursion, no caches, and
 * nothing shared with the device. Non-secure, SMMUEN=1, VMSAv8-64, devices that may not stall.
 */

export interface SlowIds {
  oas: number;
  httu: number;
  hyp: boolean;
  ats: boolean;
  /** Split-stage ATS is there (IDR0.NS1ATS=0). */
  splitAts: boolean;
  ssidsize: number;
  cd2l: boolean;
  asid16: boolean;
  vmid16: boolean;
  xnx: boolean;
  fwb: boolean;
  stt: boolean;
  e0pd: boolean;
  epan: boolean;
  had: boolean;
  ds: boolean;
  vax52: boolean;
  permsOvr: boolean;
  termModel: boolean;
  /** IDR0.STALL_MODEL. */
  stallModel: number;
  /** IDR0.TTENDIAN. */
  ttendian: number;
}

export interface SlowRequest {
  kind: 'ordinary' | 'ats-request' | 'ats-translated';
  sid: bigint;
  ssv: boolean;
  ssid: bigint;
  address: bigint;
  write: boolean;
  privileged: boolean;
  instruction: boolean;
  /** ATS Translation Request: No Write. */
  noWrite: boolean;
}

export interface SlowMachine {
  ids: SlowIds;
  strtabBase: bigint;
  log2size: bigint;
  /** STRTAB_BASE_CFG.SPLIT, or undefined for a linear table. */
  split: bigint | undefined;
  /** CR2. */
  e2h: boolean;
  recinvsid: boolean;
  recCfgAts: boolean;
  /** CR0. */
  atschk: boolean;
  /** 64-bit word, or undefined if nothing answers. */
  read(at: bigint): bigint | undefined;
  write(at: bigint, value: bigint): void;
}

/** `events` are records of four 64-bit words, at most one. */
export interface SlowResult {
  outcome: 'ok' | 'abort' | 'razwi' | 'ur' | 'ca';
  pa: bigint;
  /** Of the answer to a Translation Request: what it grants, and log2 of its size. */
  grant?: string;
  events: bigint[][];
}

export const get = (value: bigint, hi: number, lo = hi): bigint =>
  (value >> BigInt(lo)) & ((1n << BigInt(hi - lo + 1)) - 1n);
export const flag = (value: bigint, bit: number): boolean => get(value, bit) === 1n;

export const T = { ADDR_SIZE: 0x11, ACCESS: 0x12, PERMISSION: 0x13, TRANSLATION: 0x10, EABT: 0x0b };

/** Thrown by whatever ends the transaction. No Error: stacks would cost more than the walks. */
export class Stop {
  type: number;
  s2 = false;
  cls = 2n;
  ipa = 0n;
  fetch = 0n;
  ttWrite = false;
  /** Recorded and aborted whatever A, R and S say. */
  always = false;
  constructor(type: number, more: Partial<Stop> = {}) {
    this.type = type;
    Object.assign(this, more);
  }
}

/** A record, with PnU and InD as they count. */
export function recordOf(
  stop: Stop,
  request: SlowRequest,
  privileged: boolean,
  instruction: boolean,
): bigint[] {
  let d0 = BigInt(stop.type) | (request.sid << 32n);
  if (request.ssv) d0 |= (request.ssid << 12n) | (stop.type === 8 ? 0n : 1n << 11n);
  let d1 = 0n;
  let d2 = 0n;
  let d3 = 0n;
  if (stop.type >= T.EABT) {
    d1 =
      (privileged ? 1n << 33n : 0n) |
      (instruction ? 1n << 34n : 0n) |
      (request.write ? 0n : 1n << 35n) |
      (stop.s2 ? 1n << 39n : 0n) |
      (stop.cls << 40n);
    d2 = request.address;
    if (stop.s2 && stop.type >= T.TRANSLATION) d3 = stop.ipa & 0xff_ffff_ffff_f000n;
    if (stop.type === T.PERMISSION && stop.s2 && stop.cls === 1n && !stop.ttWrite) d1 |= 1n << 44n;
  }
  if (stop.type === 3 || stop.type === 9 || stop.type === T.EABT) d3 = stop.fetch & 0xff_ffff_ffff_fff8n;
  return [d0, d1, d2, d3];
}
