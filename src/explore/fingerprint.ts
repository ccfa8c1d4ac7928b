/** A state in 64 bits: all that the future of a world depends on, with names and counters that make no difference taken out. */

import { OFFSET } from '../spec/registers.ts';
import { pathOf } from './bench-host.ts';
import type { World } from './world.ts';

/** Two independent 32-bit hashes. */
export interface Fingerprint {
  readonly hi: number;
  readonly lo: number;
}

/** Registers whose value counts as it is; queue pointers count by what is between them. */
const REGISTERS = [
  OFFSET.CR0,
  OFFSET.CR2,
  OFFSET.GBPA,
  OFFSET.IRQ_CTRL,
  OFFSET.GERROR,
  OFFSET.GERRORN,
  OFFSET.STRTAB_BASE,
  OFFSET.STRTAB_BASE + 4,
  OFFSET.STRTAB_BASE_CFG,
  OFFSET.EVENTQ_BASE,
  OFFSET.EVENTQ_BASE + 4,
] as const;

/** @returns the state as text: equal texts, equal futures. */
export function stateText(world: World): string {
  const { machine, kernel, model, ledger, guest } = world;
  const { registers } = machine.smmu;
  const { viommu, veventq, devices, failures } = machine.state;
  const parts: string[] = [REGISTERS.map((offset) => registers[offset >>> 2].toString(16)).join()];
  parts.push(model.text, ledger.text(world.events));
  parts.push(
    guest
      .pendingEvents()
      .map(({ name, sid }) => `${name}${sid}`)
      .join(),
  );
  parts.push(`${Number(world.overflow)}${Number(world.interrupted)}`);
  parts.push(
    `${viommu !== undefined}${veventq?.depth}${veventq?.paused}${machine.accelerator.eventsWaiting.join()}`,
  );
  for (const { name, vsid, attached, wanted, event, reported, why } of devices)
    parts.push(`${name}${vsid}${attached}${wanted}${event}${reported}${why}`);
  for (const [concern, { code }] of failures) parts.push(`${concern}${code}`);
  parts.push(
    `${world.host.tasks.map(({ label }) => label).join()}.${world.host.tasks.length}.${world.retries.length}`,
  );
  const objects = [...kernel.objects.values()].map(({ kind, table, value }) => `${kind}${table}${value}`);
  parts.push(kernel.caches.text);
  parts.push(objects.sort().join(), [...kernel.files.values()].sort().join());
  for (const i of world.devices.keys()) parts.push(String(kernel.attachmentOf(pathOf(i))));
  return parts.join('\n');
}

/** @returns the state in 64 bits; two in 2^32 states share one by chance. */
export function fingerprint(text: string): Fingerprint {
  let hi = 0x811c_9dc5;
  let lo = 0x9e37_79b9;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    hi = Math.imul(hi ^ code, 0x0100_0193);
    lo = Math.imul(lo ^ code, 0x85eb_ca6b);
    lo ^= lo >>> 13;
  }
  hi ^= hi >>> 16;
  hi = Math.imul(hi, 0x7feb_352d);
  hi ^= hi >>> 15;
  lo = Math.imul(lo ^ (lo >>> 16), 0x846c_a68b);
  return { hi: hi >>> 0, lo: (lo ^ (lo >>> 15)) >>> 0 };
}
