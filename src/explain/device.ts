/** How a text names the device of an event. */

import { hex32 } from '../bits/u64.ts';

/** What is known about the device apart from the record. */
export interface DeviceKnowledge {
  /** The client that the driver printed, such as '0000:00:01.0'. */
  readonly client?: string;
  /** The driver printed that it knows no device with this StreamID. */
  readonly unassigned?: boolean;
  /** Names of PCI functions seen in the same text: '0000:00:01.0' to 'nvme 0000:00:01.0'. */
  readonly functions?: ReadonlyMap<string, string>;
}

/** PCI function of segment 0 whose requester ID is this StreamID; undefined if it has more than 16 bits. */
export function functionOf(sid: number): string | undefined {
  if (sid > 0xffff) return undefined;
  const hex = (value: number): string => value.toString(16).padStart(2, '0');
  return `0000:${hex(sid >>> 8)}:${hex((sid >>> 3) & 0x1f)}.${sid & 7}`;
}

/** 'nvme 0000:00:01.0 (StreamID 0x8, SubstreamID 0x1)'. */
export function deviceName(sid: number, ssid: number | undefined, knowledge: DeviceKnowledge): string {
  const ids = `StreamID ${hex32(sid)}${ssid === undefined ? '' : `, SubstreamID ${hex32(ssid)}`}`;
  const { client } = knowledge;
  if (client !== undefined) return `${knowledge.functions?.get(client) ?? client} (${ids})`;
  return `the device with ${ids}`;
}

/** What to say if the text does not name the device; undefined if it does, or if nothing can be said. */
export function deviceGuess(sid: number, knowledge: DeviceKnowledge): string | undefined {
  if (knowledge.client !== undefined) return undefined;
  if (knowledge.unassigned === true)
    return (
      `No device that Linux knows has StreamID ${hex32(sid)}: compare the iommu-map (device tree) or the ID ` +
      'mappings (IORT) with the bus, device and function numbers, and mind bridges that replace requester IDs.'
    );
  const guess = functionOf(sid);
  if (guess === undefined) return undefined;
  const seen = knowledge.functions?.get(guess);
  if (seen !== undefined)
    return `If StreamIDs are PCI requester IDs, as usual, this is ${seen}, which the same log names.`;
  return `If StreamIDs are PCI requester IDs, as usual, this is the PCI function ${guess}.`;
}
