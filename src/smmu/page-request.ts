/** What an endpoint asks of software with PCIe PRI, and what the SMMU made of it. The object is meant to be reused. */

/** One PRI message (IHI 0070 chapter 8): a page request, or a Stop Marker (a PASID with only `last` set). */
export class PageRequest {
  /** StreamID, 0..2^32-1. */
  sid = 0;
  /** The message carries a PASID, which is `ssid`. */
  ssv = false;
  ssid = 0;
  /** Page address; the low twelve bits do not count. */
  addrHi = 0;
  addrLo = 0;
  /** Page Request Group Index, 0..511. */
  prgIndex = 0;
  /** The last request of its group. */
  last = false;
  read = false;
  write = false;
  /** Both need a PASID: without one they count as false. */
  execute = false;
  privileged = false;
}

/** What became of a {@link PageRequest}. */
export const PAGE_REQUEST = {
  /** It is in the PRI queue; software answers with CMD_PRI_RESP. */
  Queued: 0,
  /** Discarded. Where the architecture has an automatic response, the response port has got it. */
  Discarded: 1,
  /** There is no PRI queue (IDR0.PRI=0): nothing happens, and no answer will come. */
  Unsupported: 2,
} as const;
export type PageRequestStatus = (typeof PAGE_REQUEST)[keyof typeof PAGE_REQUEST];
