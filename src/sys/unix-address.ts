import { AF_UNIX } from './linux.ts';

/** The longest path that a UNIX socket address can carry, in bytes of UTF-8, leaving room for the final NUL. */
export const UNIX_PATH_MAX = 107;

/**
 * A sockaddr_un for a path in the file system.
 * @returns undefined if the path is empty, has a NUL in it or is longer than {@link UNIX_PATH_MAX} bytes.
 */
export function unixAddress(path: string): Uint8Array | undefined {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length === 0 || bytes.length > UNIX_PATH_MAX || bytes.includes(0)) return undefined;
  const address = new Uint8Array(2 + bytes.length + 1);
  address[0] = AF_UNIX;
  address.set(bytes, 2);
  return address;
}
