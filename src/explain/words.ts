/** Records as people write them: hexadecimal words or bytes in a line, or over several lines. */

/** What a record can be, and its size in bytes. */
export const RECORD_SIZE = { event: 32, command: 16, 'page-request': 16, ste: 64, cd: 64 } as const;
export type RecordKind = keyof typeof RECORD_SIZE;

/** Something that could not be read, and where. Lines and columns count from 1. */
export interface Problem {
  readonly line: number;
  readonly column: number;
  readonly message: string;
}

/** A piece of text and its place. */
export interface Token {
  readonly text: string;
  readonly line: number;
  readonly column: number;
}

/** The words of a text between white space and commas. */
export function tokensOf(text: string, line = 1, column = 1): Token[] {
  return Array.from(text.matchAll(/[^\s,]+/g), (match) => ({
    text: match[0],
    line,
    column: column + match.index,
  }));
}

/** Digits of a hexadecimal number, or undefined. */
const digitsOf = (text: string): string | undefined => /^(?:0[xX])?([0-9a-fA-F]+)$/.exec(text)?.[1];

/** Every token is a hexadecimal number, and there is one. */
export const isHex = (tokens: readonly Token[]): boolean =>
  tokens.length > 0 && tokens.every(({ text }) => digitsOf(text) !== undefined);

const problemAt = (token: Token, message: string, offset = 0): Problem => ({
  line: token.line,
  column: token.column + offset,
  message,
});

/** How the tokens spell the bytes: bytes per token, and whether these are in memory order rather than a number. */
interface Spelling {
  readonly bytes: number;
  readonly inOrder: boolean;
}

/** Spelling of tokens whose total is not known. */
function spellingOf(tokens: readonly Token[]): Spelling {
  const digits = tokens.map(({ text }) => digitsOf(text) ?? '');
  const bare = tokens.every(({ text }) => !/^0x/i.test(text));
  const all = (n: number): boolean => digits.every((text) => text.length === n);
  const bytes = (digits[0] ?? '').length / 2;
  if (bytes > 8 && Number.isInteger(bytes) && all(2 * bytes)) return { bytes, inOrder: true };
  if (bare && all(2)) return { bytes: 1, inOrder: true };
  if (bare && all(4)) return { bytes: 2, inOrder: true };
  return { bytes: all(8) ? 4 : 8, inOrder: false };
}

/** Spelling of tokens that together are so many bytes; undefined if their number does not fit. */
function spellingFor(tokens: readonly Token[], size: number): Spelling | undefined {
  const guess = spellingOf(tokens);
  if (guess.bytes * tokens.length === size) return guess;
  const bytes = size / tokens.length;
  return [1, 4, 8].includes(bytes) ? { bytes, inOrder: bytes === 1 } : undefined;
}

/** Bytes that the tokens give, by their own look. */
export function bytesIn(tokens: readonly Token[]): number {
  return tokens.length === 0 ? 0 : spellingOf(tokens).bytes * tokens.length;
}

/**
 * Reads a record.
 * @param size bytes of the record
 * @returns its 32-bit words, or why it cannot be read
 */
export function readWords(tokens: readonly Token[], size: number): Uint32Array | Problem {
  for (const token of tokens) {
    if (digitsOf(token.text) !== undefined) continue;
    const start = /^0x/i.test(token.text) ? 2 : 0;
    const bad = token.text.slice(start).search(/[^0-9a-fA-F]/);
    return problemAt(token, `'${token.text}' is not a hexadecimal number`, bad < 0 ? 0 : start + bad);
  }
  const spelling = spellingFor(tokens, size);
  if (spelling === undefined) {
    const at = tokens[0] ?? { text: '', line: 1, column: 1 };
    const given = tokens.length === 0 ? 'nothing' : `${tokens.length} hexadecimal numbers`;
    return problemAt(
      at,
      `${given} where ${size / 8} of 64 bits, ${size / 4} of 32 bits or ${size} bytes are needed`,
    );
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const token of tokens) {
    const digits = digitsOf(token.text)!;
    if (digits.replace(/^0+/, '').length > spelling.bytes * 2)
      return problemAt(token, `'${token.text}' has more than ${spelling.bytes * 8} bits`);
    const padded = digits.padStart(spelling.bytes * 2, '0').slice(-spelling.bytes * 2);
    for (let i = 0; i < spelling.bytes; i++) {
      const byte = parseInt(padded.slice(2 * i, 2 * i + 2), 16);
      bytes[spelling.inOrder ? at + i : at + spelling.bytes - 1 - i] = byte;
    }
    at += spelling.bytes;
  }
  const view = new DataView(bytes.buffer);
  return Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(i * 4, true));
}

/**
 * Reads a record from text: numbers of 64 or 32 bits, or bytes in memory order, in hexadecimal.
 * @returns its 32-bit words, or why it cannot be read
 */
export const parseRecord = (kind: RecordKind, text: string): Uint32Array | Problem =>
  readWords(
    text.split('\n').flatMap((line, i) => tokensOf(line, i + 1)),
    RECORD_SIZE[kind],
  );

/** It is a problem and not what was asked for. */
export const isProblem = (value: Uint32Array | Problem): value is Problem => !(value instanceof Uint32Array);
