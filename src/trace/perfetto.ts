/** A trace in Perfetto's own format (TrackEvent), for https://ui.perfetto.dev: one track for each part of the machine. */

import { trackOf, valueName, type Track } from './event-names.ts';
import { ProtobufWriter } from './protobuf.ts';
import type { TraceEntry } from './trace-ring.ts';

/** Field numbers of Perfetto's messages. */
const TRACE = { packet: 1 } as const;
const PACKET = {
  timestamp: 8,
  trustedPacketSequenceId: 10,
  trackEvent: 11,
  sequenceFlags: 13,
  trackDescriptor: 60,
} as const;
const DESCRIPTOR = { uuid: 1, name: 2, process: 3, parentUuid: 5 } as const;
const PROCESS = { pid: 1, processName: 6 } as const;
const EVENT = { debugAnnotations: 4, type: 9, trackUuid: 11, categories: 22, name: 23 } as const;
const ANNOTATION = { uintValue: 3, stringValue: 6, pointerValue: 7, name: 10 } as const;

const TYPE_INSTANT = 3;
const INCREMENTAL_STATE_CLEARED = 1;
/** All packets come from one writer. */
const SEQUENCE = 1;
const PROCESS_UUID = 1;
const TRACKS: readonly Track[] = ['registers', 'commands', 'translation', 'events', 'interrupts', 'host'];
const uuidOf = (track: Track): number => PROCESS_UUID + 1 + TRACKS.indexOf(track);

/** @returns the bytes of a `.pftrace` file. @param name of the virtual SMMU. */
export function toPerfetto(entries: readonly TraceEntry[], name = 'vsmmu'): Uint8Array {
  const trace = new ProtobufWriter();
  trace.message(TRACE.packet, (packet) => {
    packet.uint(PACKET.trustedPacketSequenceId, SEQUENCE);
    packet.uint(PACKET.sequenceFlags, INCREMENTAL_STATE_CLEARED);
    packet.message(PACKET.trackDescriptor, (descriptor) => {
      descriptor.uint(DESCRIPTOR.uuid, PROCESS_UUID);
      descriptor.message(DESCRIPTOR.process, (process) => {
        process.uint(PROCESS.pid, 1);
        process.text(PROCESS.processName, name);
      });
    });
  });
  for (const track of TRACKS)
    trace.message(TRACE.packet, (packet) => {
      packet.uint(PACKET.trustedPacketSequenceId, SEQUENCE);
      packet.message(PACKET.trackDescriptor, (descriptor) => {
        descriptor.uint(DESCRIPTOR.uuid, uuidOf(track));
        descriptor.text(DESCRIPTOR.name, track);
        descriptor.uint(DESCRIPTOR.parentUuid, PROCESS_UUID);
      });
    });
  for (const entry of entries) trace.message(TRACE.packet, (packet) => writeEntry(packet, entry));
  return trace.bytes;
}

function writeEntry(packet: ProtobufWriter, { time, event, values, names }: TraceEntry): void {
  const track = trackOf(event);
  packet.uint(PACKET.timestamp, Math.max(0, Math.round(time)));
  packet.uint(PACKET.trustedPacketSequenceId, SEQUENCE);
  packet.message(PACKET.trackEvent, (message) => {
    message.uint(EVENT.type, TYPE_INSTANT);
    message.uint(EVENT.trackUuid, uuidOf(track));
    message.text(EVENT.categories, track);
    message.text(EVENT.name, event);
    for (const [i, value] of values.entries())
      message.message(EVENT.debugAnnotations, (annotation) => {
        const { name, decimal } = valueName(event, names, i);
        annotation.text(ANNOTATION.name, name);
        if (typeof value === 'string') annotation.text(ANNOTATION.stringValue, value);
        else annotation.uint(decimal ? ANNOTATION.uintValue : ANNOTATION.pointerValue, Math.max(0, value));
      });
  });
}
