/** What all ACPI tables begin with, and the checksum over each. */

/** A table that is not one, or that says of itself what cannot be. */
export class AcpiError extends Error {
  override readonly name = 'AcpiError';
  readonly code = 'BAD_ACPI_TABLE';
}

/** The header, 36 bytes; length and checksum follow from the table. */
export interface AcpiHeader {
  /** Four letters. */
  readonly signature: string;
  /** Of the table's form. */
  readonly revision: number;
  /** Up to 6 characters. */
  readonly oemId: string;
  /** Up to 8 characters. */
  readonly oemTableId: string;
  readonly oemRevision: number;
  /** Up to 4 characters. */
  readonly creatorId: string;
  readonly creatorRevision: number;
}

export const ACPI_HEADER_SIZE = 36;

const LENGTH = 4;
const REVISION = 8;
const CHECKSUM = 9;
const OEM_ID = 10;
const OEM_TABLE_ID = 16;
const OEM_REVISION = 24;
const CREATOR_ID = 28;
const CREATOR_REVISION = 32;

/** The sum of all bytes of a good table is 0, modulo 256. */
const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);

/** Bytes as text; each character is one byte. Zeros at the end are padding. */
const textAt = (bytes: Uint8Array, at: number, length: number): string =>
  String.fromCharCode(...bytes.subarray(at, at + length)).replace(/\0+$/, '');

/**
 * Reads a table's header.
 * @param bytes the table; what follows its own length is ignored.
 * @returns the header, and the table in its own length.
 * @throws {AcpiError} if it is too short, of another signature, or its checksum is wrong.
 */
export function readAcpiTable(
  bytes: Uint8Array,
  signature: string,
): { readonly header: AcpiHeader; readonly table: Uint8Array } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length < ACPI_HEADER_SIZE) throw new AcpiError(`${bytes.length} bytes are no ACPI table.`);
  const found = textAt(bytes, 0, 4);
  if (found !== signature) throw new AcpiError(`The table is ${JSON.stringify(found)}, not ${signature}.`);
  const length = view.getUint32(LENGTH, true);
  if (length < ACPI_HEADER_SIZE || length > bytes.length)
    throw new AcpiError(`${signature} says that it has ${length} bytes; there are ${bytes.length}.`);
  const table = bytes.subarray(0, length);
  if (sum(table) !== 0) throw new AcpiError(`The checksum of ${signature} is wrong.`);
  const header: AcpiHeader = {
    signature,
    revision: bytes[REVISION],
    oemId: textAt(bytes, OEM_ID, 6),
    oemTableId: textAt(bytes, OEM_TABLE_ID, 8),
    oemRevision: view.getUint32(OEM_REVISION, true),
    creatorId: textAt(bytes, CREATOR_ID, 4),
    creatorRevision: view.getUint32(CREATOR_REVISION, true),
  };
  return { header, table };
}

/**
 * Makes a table of a header and what follows it; length and checksum are filled in.
 * @throws {AcpiError} if a text does not fit.
 */
export function writeAcpiTable(header: AcpiHeader, body: Uint8Array): Uint8Array {
  const table = new Uint8Array(ACPI_HEADER_SIZE + body.length);
  const view = new DataView(table.buffer);
  const text = (at: number, length: number, value: string): void => {
    for (let i = 0; i < value.length; i++) {
      const code = value.charCodeAt(i);
      if (i >= length || code > 0xff)
        throw new AcpiError(`${JSON.stringify(value)} does not fit into ${length} bytes.`);
      table[at + i] = code;
    }
  };
  text(0, 4, header.signature);
  text(OEM_ID, 6, header.oemId);
  text(OEM_TABLE_ID, 8, header.oemTableId);
  text(CREATOR_ID, 4, header.creatorId);
  view.setUint32(LENGTH, table.length, true);
  view.setUint8(REVISION, header.revision);
  view.setUint32(OEM_REVISION, header.oemRevision, true);
  view.setUint32(CREATOR_REVISION, header.creatorRevision, true);
  table.set(body, ACPI_HEADER_SIZE);
  table[CHECKSUM] = -sum(table) & 0xff;
  return table;
}
