/** The VERSION handshake: which capabilities the two sides have. */

import { HEADER_SIZE, MAX_DATA, MAX_FDS, VERSION } from './messages.ts';

/** What the client can take. */
export interface ClientLimits {
  /** Most descriptors in one message. */
  readonly maxFds: number;
  /** Most data bytes in one message. */
  readonly maxData: number;
}

/** The most windows of guest memory at a time. QEMU has one for each piece of RAM. */
export const MAX_DMA_MAPS = 1024;
export const PAGE_SIZE = 4096;

/** What the protocol says where a client is silent. */
const DEFAULTS: ClientLimits = { maxFds: 1, maxData: 1 << 20 };

/** More JSON than this nobody needs; QEMU sends about 250 bytes. */
const MAX_VERSION_JSON = 4096;

/** Ours, by name. A reply may hold only those that the client named. */
const CAPABILITIES = {
  max_msg_fds: MAX_FDS,
  max_data_xfer_size: MAX_DATA,
  max_dma_maps: MAX_DMA_MAPS,
  pgsizes: PAGE_SIZE,
  write_multiple: true,
} as const;

export type Negotiated =
  | { readonly limits: ClientLimits; readonly reply: Uint8Array }
  | { readonly field: string; readonly got: string; readonly expected: string };

const isCount = (value: unknown): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function parse(json: Uint8Array): unknown {
  if (json.length === 0) return {};
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json)) as unknown;
  } catch {
    return undefined;
  }
}

/**
 * Reads a VERSION request and makes the payload of its reply.
 * @param payload what follows the header.
 */
export function negotiate(payload: Uint8Array): Negotiated {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const major = VERSION.fields.major.get(view);
  if (major !== 0) return { field: 'major', got: String(major), expected: '0' };
  const text = payload.subarray(VERSION.size);
  if (text.length > MAX_VERSION_JSON)
    return {
      field: 'size',
      got: String(HEADER_SIZE + payload.length),
      expected: `at most ${MAX_VERSION_JSON} bytes of version data`,
    };
  if (text.length > 0 && text[text.length - 1] !== 0)
    return { field: 'version data', got: 'text without an end', expected: 'JSON and a NUL' };
  const version = parse(text.subarray(0, -1));
  if (!isObject(version)) return { field: 'version data', got: 'something else', expected: 'a JSON object' };
  const capabilities = version['capabilities'] ?? {};
  if (!isObject(capabilities))
    return { field: 'capabilities', got: typeof capabilities, expected: 'a JSON object' };
  const maxFds = capabilities['max_msg_fds'] ?? DEFAULTS.maxFds;
  if (!isCount(maxFds)) return { field: 'max_msg_fds', got: typeof maxFds, expected: 'a count' };
  const maxData = capabilities['max_data_xfer_size'] ?? DEFAULTS.maxData;
  if (!isCount(maxData) || maxData === 0)
    return {
      field: 'max_data_xfer_size',
      got: typeof maxData === 'number' ? String(maxData) : typeof maxData,
      expected: 'a count above 0',
    };

  const ours = Object.entries(CAPABILITIES).filter(([name]) => name in capabilities);
  const json = new TextEncoder().encode(`${JSON.stringify({ capabilities: Object.fromEntries(ours) })}\0`);
  // Major and minor are 0: there is nothing lower to agree on.
  const reply = new Uint8Array(VERSION.size + json.length);
  reply.set(json, VERSION.size);
  return { limits: { maxFds, maxData: Math.min(maxData, MAX_DATA) }, reply };
}
