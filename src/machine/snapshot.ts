/**
 * A whole virtual SMMU as JSON: registers, plugged devices, and events on their way to the guest. Host objects are not
 * in it: on another host, or another day, reconcile makes them anew from the rest. Guest memory is its owner's.
 */

import * as v from 'valibot';
import { Identity } from '../accel/properties.ts';
import { STALLS_MAX } from '../accel/recoverable-faults.ts';
import { hex32, parseU64 } from '../bits/u64.ts';
import { HostError } from '../iommufd/errors.ts';
import { idsOf, restoreSmmu, saveSmmu, SnapshotError } from '../smmu/snapshot.ts';
import { EVENT_WORDS } from '../spec/events.ts';
import { MAX_LOG2_QUEUE_SIZE } from '../spec/queues.ts';
import { STE_WORDS } from '../spec/ste.ts';
import type { Machine } from './machine.ts';

export const SNAPSHOT_VERSION = 1;

const word = v.pipe(
  v.string(),
  v.check((text) => (parseU64(text) ?? 1n << 32n) < 1n << 32n, 'a 32-bit number is expected'),
);
const words = (count: number) => v.pipe(v.array(word), v.length(count));
const name = v.pipe(v.string(), v.minLength(1), v.maxLength(256));

const SNAPSHOT = v.strictObject({
  format: v.literal('vsmmu-snapshot'),
  version: v.literal(SNAPSHOT_VERSION),
  smmu: v.strictObject({
    ids: v.record(v.string(), v.string()),
    registers: v.record(v.string(), v.string()),
    atcInvTimeout: v.boolean(),
  }),
  devices: v.pipe(
    v.array(
      v.strictObject({
        name,
        path: name,
        sid: v.nullable(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(2 ** 32 - 1))),
        ste: v.nullable(words(STE_WORDS)),
      }),
    ),
    v.maxLength(65_536),
  ),
  /** Event records that the guest has not got yet, oldest first. */
  events: v.pipe(v.array(words(EVENT_WORDS)), v.maxLength(2 ** (MAX_LOG2_QUEUE_SIZE + 2))),
  /** STAGs of stalled transactions that the guest was told of and may still answer: the last to be used again. */
  stags: v.optional(
    v.pipe(
      v.array(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(STALLS_MAX - 1))),
      v.maxLength(STALLS_MAX),
      v.check((stags) => new Set(stags).size === stags.length, 'a STAG is there twice'),
    ),
    [],
  ),
});
export type MachineSnapshot = v.InferOutput<typeof SNAPSHOT>;

const toText = (values: Uint32Array): string[] => [...values].map((value) => hex32(value));
const toWords = (texts: readonly string[]): Uint32Array =>
  Uint32Array.from(texts, (text) => Number(parseU64(text)));

/**
 * Takes a snapshot. The machine goes on; for one guest in two places its owner stops one of them. Events that the host
 * holds are taken out: the guest gets them from here, as far as it has room at once, or from the snapshot.
 * @throws SnapshotError while transactions are stalled.
 */
export function takeSnapshot({ accelerator, smmu }: Machine): MachineSnapshot {
  // First: what was lost shows in registers.
  const events = accelerator.drainEvents().map(toText);
  const stags = [...accelerator.releaseFaults()];
  try {
    return {
      format: 'vsmmu-snapshot',
      version: SNAPSHOT_VERSION,
      smmu: saveSmmu(smmu),
      devices: accelerator.plugged.map((device) => ({
        name: device.name,
        path: device.path,
        sid: device.sid ?? null,
        ste: device.ste === undefined ? null : toText(device.ste),
      })),
      events,
      stags,
    };
  } finally {
    // Nobody else would tell the accelerator of room that was there all the time.
    accelerator.eventQueueChanged();
  }
}

/** Checks that a value is a snapshot of a version that we know. @throws SnapshotError naming what is wrong. */
export function parseSnapshot(value: unknown): MachineSnapshot {
  const version = (value as { version?: unknown } | null)?.version;
  if (typeof version === 'number' && version !== SNAPSHOT_VERSION)
    throw new SnapshotError('SNAPSHOT_IMPOSSIBLE', [
      `It has version ${version}; this program reads version ${SNAPSHOT_VERSION}.`,
    ]);
  const result = v.safeParse(SNAPSHOT, value);
  if (result.success) return result.output;
  const problems = result.issues.map((issue) => `${v.getDotPath(issue) ?? 'It'}: ${issue.message}.`);
  throw new SnapshotError('SNAPSHOT_INVALID', problems);
}

/** What a plug would advise comes too late for a guest that has seen its ID registers. */
const lesserHost = ({ code, reason }: HostError): HostError =>
  new HostError(
    code,
    'restore',
    reason,
    'Restore it on a host that can do all that the guest was told, as the one before could.',
  );

export interface RestoreOptions {
  /** Where devices are on this host, if not where they were: VFIO device files by name. */
  readonly paths?: Readonly<Record<string, string>>;
}

/**
 * Makes a machine without devices, over the same guest memory, into the one of a snapshot, with the host objects that
 * belong to it. Nothing stale is left in the host's caches, and no event is lost or delivered twice.
 * @throws SnapshotError, or HostError if this host cannot serve one of the devices. No device is plugged then, and the
 * SMMU is as before, or reset if the host had a part in it.
 */
export function restoreSnapshot(machine: Machine, value: unknown, { paths = {} }: RestoreOptions = {}): void {
  const snapshot = parseSnapshot(value);
  const { accelerator, identity, smmu } = machine;
  if (accelerator.plugged.length > 0)
    throw new SnapshotError('SNAPSHOT_IMPOSSIBLE', [
      'The machine has devices of its own: unplug them first.',
    ]);
  const names = new Set(snapshot.devices.map((device) => device.name));
  if (names.size !== snapshot.devices.length)
    throw new SnapshotError('SNAPSHOT_INVALID', ['Two devices have the same name.']);
  const before = identity.resolved;
  identity.adopt(Identity.of(idsOf(snapshot.smmu)));
  try {
    restoreSmmu(smmu, snapshot.smmu);
  } catch (error) {
    identity.adopt(before);
    throw error;
  }
  accelerator.restoreEvents(snapshot.events.map(toWords));
  accelerator.restoreStags(snapshot.stags);
  try {
    for (const { name: device, path, sid, ste } of snapshot.devices)
      machine.plugRestored({
        name: device,
        path: paths[device] ?? path,
        sid: sid ?? undefined,
        ste: ste === null ? undefined : toWords(ste),
      });
  } catch (error) {
    for (const { name: device } of accelerator.plugged) machine.unplug(device);
    accelerator.restoreEvents([]);
    smmu.reset();
    throw error instanceof HostError && error.code === 'EOPNOTSUPP' && error.operation === 'plug'
      ? lesserHost(error)
      : error;
  }
  smmu.resume();
}
