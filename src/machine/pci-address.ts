/** Where a guest sees a PCI function. */

/** The requester id of a `bb:dd.f` address (hexadecimal), which is its StreamID behind an SMMU with an identity map. */
export function requesterId(address: string): number {
  const match = /^([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/.exec(address);
  if (match === null) throw new RangeError(`"${address}" is not a PCI address such as 01:00.0`);
  return (parseInt(match[1], 16) << 8) | (parseInt(match[2], 16) << 3) | parseInt(match[3], 16);
}

/** The name that Linux gives the function in segment 0. */
export const linuxName = (address: string): string => `0000:${address}`;
