/** What a peer sent against the protocol, in a form that people can act on. */

export interface Violation {
  /** `DMA_MAP`, or `header`. */
  readonly message: string;
  readonly field: string;
  readonly got: string;
  readonly expected: string;
  /** True if the stream cannot be trusted any more, so that the connection has to end. */
  readonly fatal: boolean;
}

/** One sentence: `vfio-user DMA_MAP: size is 0x1001, expected a multiple of 0x1000`. */
export const violationText = (violation: Violation): string =>
  `vfio-user ${violation.message}: ${violation.field} is ${violation.got}, expected ${violation.expected}`;

/** `0x1f`, for numbers of any size up to 2^64. */
export const hex = (value: number): string => `0x${value.toString(16)}`;
