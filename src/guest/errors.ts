/** What the reference driver gives up over: each code with the errno that Linux's driver returns in its place. */

export const GUEST_ERRORS = {
  /** IDR0.TTENDIAN is neither mixed nor little-endian. */
  GUEST_TT_ENDIAN: 'ENXIO',
  /** Neither IDR0.S1P nor IDR0.S2P. */
  GUEST_NO_TRANSLATION: 'ENXIO',
  /** IDR0.TTF has no AArch64 format. */
  GUEST_NO_AARCH64: 'ENXIO',
  /** IDR1 TABLES_PRESET, QUEUES_PRESET or REL. */
  GUEST_PRESET: 'ENXIO',
  /** IDR1.CMDQS cannot hold a batch of commands and its CMD_SYNC. */
  GUEST_CMDQ_TOO_SMALL: 'ENXIO',
  /** IDR5 names no granule. */
  GUEST_NO_GRANULE: 'ENXIO',
  /** An enable was written and its ACK register never showed it. */
  GUEST_ACK_TIMEOUT: 'ETIMEDOUT',
  /** GBPA.UPDATE did not clear. */
  GUEST_GBPA_TIMEOUT: 'ETIMEDOUT',
  /** The command queue stayed full. */
  GUEST_CMDQ_TIMEOUT: 'ETIMEDOUT',
  /** A CMD_SYNC was not consumed. */
  GUEST_SYNC_TIMEOUT: 'ETIMEDOUT',
  /** The RAM given to the guest is used up. */
  GUEST_OUT_OF_MEMORY: 'ENOMEM',
  /** The guest's own RAM is not where it was said to be. */
  GUEST_NO_RAM: 'EFAULT',
  /** Not probed, or shut down since. */
  GUEST_NOT_PROBED: 'ENODEV',
  GUEST_ALREADY_PROBED: 'EBUSY',
  /** The StreamID does not fit the stream table, or the SubstreamID the table of CDs. */
  GUEST_ID_RANGE: 'ERANGE',
  GUEST_UNKNOWN_DEVICE: 'ENODEV',
  GUEST_DEVICE_EXISTS: 'EEXIST',
  /** The domain was freed, or is another driver's. */
  GUEST_BAD_DOMAIN: 'EINVAL',
  /** The domain is still attached. */
  GUEST_DOMAIN_BUSY: 'EBUSY',
  GUEST_NO_ASID: 'ENOSPC',
  /** An address or size is not a multiple of the smallest page, or beyond the address size. */
  GUEST_BAD_ADDRESS: 'EINVAL',
  GUEST_ALREADY_MAPPED: 'EEXIST',
  GUEST_NOT_MAPPED: 'ENOENT',
  /** Part of a block was to be unmapped. */
  GUEST_BLOCK_SPLIT: 'EINVAL',
} as const;
export type GuestErrorCode = keyof typeof GUEST_ERRORS;

/** The driver could not do what was asked. What it had to undo for that, it has undone; `log` says more. */
export class GuestDriverError extends Error {
  readonly code: GuestErrorCode;
  /** What Linux's function returns. */
  readonly errno: string;

  constructor(code: GuestErrorCode, message: string) {
    super(message);
    this.name = 'GuestDriverError';
    this.code = code;
    this.errno = GUEST_ERRORS[code];
  }
}
