/** Log pages (NVMe 1.4, 5.14.1). */

import type { Events } from './events.ts';
import type { Namespace } from './namespace.ts';

export const LOG_PAGE = { Error: 0x01, Smart: 0x02, FirmwareSlot: 0x03, ChangedNamespaces: 0x04 } as const;

/** In kelvins. */
const TEMPERATURE = 300;
/** SMART data units are thousands of 512 bytes, rounded up. */
const DATA_UNIT = 512_000;

function smart(namespace: Namespace, events: Events): Uint8Array {
  const bytes = new Uint8Array(512);
  const view = new DataView(bytes.buffer);
  const put = (at: number, value: number): void => {
    view.setUint32(at, value % 0x1_0000_0000, true);
    view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
  };
  const usage = namespace.usage;
  view.setUint16(1, TEMPERATURE, true);
  bytes[3] = 100; // available spare in per cent
  bytes[4] = 10; // and its threshold
  put(32, Math.ceil(usage.bytesRead / DATA_UNIT));
  put(48, Math.ceil(usage.bytesWritten / DATA_UNIT));
  put(64, usage.reads);
  put(80, usage.writes);
  put(112, 1); // power cycles
  put(176, events.errors);
  return bytes;
}

function firmwareSlot(firmware: string): Uint8Array {
  const bytes = new Uint8Array(512);
  bytes[0] = 1;
  bytes.fill(0x20, 8, 16);
  for (let i = 0; i < Math.min(8, firmware.length); i++) bytes[8 + i] = firmware.charCodeAt(i) & 0x7f;
  return bytes;
}

/** The bytes of a log page, or undefined if there is no such page. */
export function logPage(
  page: number,
  namespace: Namespace,
  events: Events,
  firmware: string,
): Uint8Array | undefined {
  switch (page) {
    case LOG_PAGE.Error:
      return events.errorLog;
    case LOG_PAGE.Smart:
      return smart(namespace, events);
    case LOG_PAGE.FirmwareSlot:
      return firmwareSlot(firmware);
    case LOG_PAGE.ChangedNamespaces:
      // No namespace ever changes.
      return new Uint8Array(4096);
    default:
      return undefined;
  }
}
