/** One client transaction, and what the SMMU made of it. Both objects are meant to be reused: nothing is allocated. */

/** Kinds of transaction (IHI 0070 3.9.1). */
export const KIND = {
  /** An ordinary, untranslated read or write. */
  Untranslated: 0,
  /** A PCIe ATS Translation Request. */
  AtsRequest: 1,
  /** A transaction that carries an address that ATS translated. */
  AtsTranslated: 2,
} as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

export class Transaction {
  kind: Kind = KIND.Untranslated;
  /** StreamID, 0..2^32-1. */
  sid = 0;
  /** SubstreamID; meaningful only if `ssv`. */
  ssid = 0;
  ssv = false;
  /** The address as the device gave it, all 64 bits. */
  addrHi = 0;
  addrLo = 0;
  write = false;
  /** PnU and InD before STE overrides. PCIe without PASID is unprivileged data (13.7). */
  privileged = false;
  instruction = false;
  /** ATS Translation Request: No Write. */
  noWrite = false;
  /** Only for stall-capable devices: false makes a stall configuration terminate instead (3.12). */
  mayStall = false;
}

/** Outcome of a transaction. */
export const OUTCOME = {
  /** Go on with the output address. */
  Ok: 0,
  /** Terminated with an abort. */
  Abort: 1,
  /** Terminated; reads return zero, writes are ignored (CD.A=0). */
  RazWi: 2,
  /** Waits for CMD_RESUME; `stag` names it. */
  Stalled: 3,
  /** ATS request: Unsupported Request, Completer Abort. */
  AtsUr: 4,
  AtsCa: 5,
} as const;
export type Outcome = (typeof OUTCOME)[keyof typeof OUTCOME];

export class Translation {
  outcome: Outcome = OUTCOME.Abort;
  /** Output address; valid if Ok. */
  paHi = 0;
  paLo = 0;
  /** log2 of the aligned block around the output address for which the answer holds; 12 or more if Ok. */
  log2Size = 0;
  /** ATS request: what the answer grants. */
  readable = false;
  writable = false;
  executable = false;
  /** EventType of the event that this transaction generated, 0 if none; set whether or not it could be recorded. */
  event = 0;
  stag = 0;
}
