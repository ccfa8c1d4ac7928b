/** What Identify returns (NVMe 1.4, 5.15.2). All pages are 4096 bytes. */

import type { Header } from '../config-space.ts';
import { ERROR_LOG_ENTRIES, MAX_EVENT_REQUESTS } from './events.ts';
import type { Namespace } from './namespace.ts';
import { VERSION } from './registers.ts';

export const IDENTIFY_SIZE = 4096;

/** Composite temperature thresholds in kelvins: warning and critical. */
export const WARNING_TEMPERATURE = 343;
const CRITICAL_TEMPERATURE = 353;

export interface Identity {
  /** At most 20 printable ASCII characters; two controllers of a machine must differ. */
  readonly serial: string;
  /** At most 40 printable ASCII characters. */
  readonly model: string;
  /** At most 8 printable ASCII characters. */
  readonly firmware: string;
}

/** Identifiers that follow from the serial number: a version 8 UUID, made by FNV-1a over the text. */
export function uuidOf(serial: string): Uint8Array {
  const uuid = new Uint8Array(16);
  for (let i = 0; i < 4; i++) {
    let hash = (0x811c_9dc5 ^ i) >>> 0;
    for (let at = 0; at < serial.length; at++)
      hash = Math.imul(hash ^ serial.charCodeAt(at), 0x0100_0193) >>> 0;
    new DataView(uuid.buffer).setUint32(i * 4, hash);
  }
  uuid[6] = (uuid[6] & 0x0f) | 0x80;
  uuid[8] = (uuid[8] & 0x3f) | 0x80;
  return uuid;
}

function uuidText(uuid: Uint8Array): string {
  const digits = Array.from(uuid, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** ASCII, padded with `fill`; characters that are not printable become `?`. */
function putText(into: Uint8Array, at: number, size: number, text: string, fill: number): void {
  into.fill(fill, at, at + size);
  for (let i = 0; i < Math.min(size, text.length); i++) {
    const code = text.charCodeAt(i);
    into[at + i] = code >= 0x20 && code < 0x7f ? code : 0x3f;
  }
}

/** CNS 01h. @param log2MaxPages MDTS: log2 of the pages of 4 KiB that one command may transfer */
export function identifyController(identity: Identity, header: Header, log2MaxPages: number): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, header.vendorId, true);
  view.setUint16(2, header.subsystemVendorId, true);
  putText(bytes, 4, 20, identity.serial, 0x20);
  putText(bytes, 24, 40, identity.model, 0x20);
  putText(bytes, 64, 8, identity.firmware, 0x20);
  bytes[77] = log2MaxPages; // MDTS
  view.setUint16(78, 1, true); // CNTLID
  view.setUint32(80, VERSION, true); // VER
  bytes[111] = 1; // CNTRLTYPE: I/O controller
  bytes[258] = 3; // ACL
  bytes[259] = MAX_EVENT_REQUESTS - 1; // AERL
  bytes[260] = 0b0011; // FRMW: one slot, read-only
  bytes[261] = 0b0100; // LPA: Get Log Page has offsets
  bytes[262] = ERROR_LOG_ENTRIES - 1; // ELPE
  view.setUint16(266, WARNING_TEMPERATURE, true); // WCTEMP
  view.setUint16(268, CRITICAL_TEMPERATURE, true); // CCTEMP
  bytes[512] = 0x66; // SQES: 64 bytes
  bytes[513] = 0x44; // CQES: 16 bytes
  view.setUint32(516, 1, true); // NN
  view.setUint16(520, 0b1100, true); // ONCS: Write Zeroes, Dataset Management
  bytes[525] = 0b111; // VWC: a volatile cache; Flush takes NSID FFFFFFFFh
  putText(bytes, 768, 256, `nqn.2014-08.org.nvmexpress:uuid:${uuidText(uuidOf(identity.serial))}`, 0);
  view.setUint16(2048, 100, true); // PSD0.MP: 1 W
  return bytes;
}

/** CNS 00h for namespace 1. */
export function identifyNamespace(identity: Identity, namespace: Namespace): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, namespace.blocks, true); // NSZE
  view.setUint32(8, namespace.blocks, true); // NCAP
  view.setUint32(16, namespace.blocks, true); // NUSE
  bytes[33] = 0b1001; // DLFEAT: deallocated blocks read zero; Write Zeroes may deallocate
  bytes.set(uuidOf(identity.serial), 104); // NGUID
  bytes[128 + 2] = namespace.blockShift; // LBAF0.LBADS
  return bytes;
}

/** CNS 03h for namespace 1. */
export function identifyDescriptors(identity: Identity): Uint8Array {
  const bytes = new Uint8Array(IDENTIFY_SIZE);
  const id = uuidOf(identity.serial);
  bytes.set([2, 16], 0); // NGUID
  bytes.set(id, 4);
  bytes.set([3, 16], 20); // UUID
  bytes.set(id, 24);
  return bytes;
}
