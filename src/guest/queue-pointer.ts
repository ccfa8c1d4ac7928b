/**
 * Queue pointers (IHI 0070 3.5.1): an index of `log2Size` bits with a wrap flag above it. The driver keeps its own copy
 * of both and looks at the device's only when it must.
 */

/** The index and the wrap flag of a register value. */
export const pointerOf = (value: number, log2Size: number): number => value & (2 ** (log2Size + 1) - 1);

export const indexOf = (pointer: number, log2Size: number): number => pointer & (2 ** log2Size - 1);

/** `pointer` after `n` more entries. */
export const advance = (pointer: number, n: number, log2Size: number): number =>
  (pointer + n) & (2 ** (log2Size + 1) - 1);

/** Entries from `cons` to `prod`; more than the queue holds if the two do not belong together. */
export const distance = (prod: number, cons: number, log2Size: number): number =>
  (prod - cons) & (2 ** (log2Size + 1) - 1);
