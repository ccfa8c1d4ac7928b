import { QemuError } from './errors.ts';

/** An archive in the "newc" form of cpio, which the kernel unpacks as its initramfs. */
export interface CpioEntry {
  /** Path without a leading slash. */
  name: string;
  kind: 'file' | 'directory' | 'symlink' | 'character-device';
  /** Permission bits, 0o000 to 0o7777. */
  mode: number;
  /** A file's content, or a link's target. */
  data?: Uint8Array | string;
  /** Of a device node. */
  device?: { major: number; minor: number };
}

const KIND_BITS = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  'character-device': 0o020000,
} as const;

const roundUp = (length: number): number => (length + 3) & ~3;

/** Everything belongs to root, at time 0, so equal input gives equal bytes. */
export function writeCpio(entries: readonly CpioEntry[]): Uint8Array {
  const encoder = new TextEncoder();
  const parts: Uint8Array[] = [];
  let length = 0;
  const push = (bytes: Uint8Array): void => {
    parts.push(bytes);
    length += bytes.length;
    const padding = roundUp(length) - length;
    if (padding > 0) parts.push(new Uint8Array(padding));
    length += padding;
  };
  const entry = (
    inode: number,
    mode: number,
    { name, data = '', device }: Omit<CpioEntry, 'kind' | 'mode'>,
  ): void => {
    const path = encoder.encode(`${name}\0`);
    if (path.indexOf(0) !== path.length - 1 || name.startsWith('/') || name === '') {
      throw new QemuError('PROTOCOL', `cpio: the name ${JSON.stringify(name)} cannot be written.`);
    }
    const content = typeof data === 'string' ? encoder.encode(data) : data;
    const fields = [
      inode,
      mode,
      0, // user
      0, // group
      1, // links
      0, // time
      content.length,
      0, // device that the archive was made on, major and minor
      0,
      device?.major ?? 0,
      device?.minor ?? 0,
      path.length,
      0, // no checksum in this form
    ];
    const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0').toUpperCase()).join('')}`;
    // The name follows the header at once; together they end on a multiple of four.
    const start = new Uint8Array(header.length + path.length);
    start.set(encoder.encode(header));
    start.set(path, header.length);
    push(start);
    if (content.length > 0) push(content);
  };
  for (const [i, { kind, mode, ...rest }] of entries.entries()) entry(i + 1, KIND_BITS[kind] | mode, rest);
  entry(0, 0, { name: 'TRAILER!!!' });

  const archive = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    archive.set(part, at);
    at += part.length;
  }
  return archive;
}
