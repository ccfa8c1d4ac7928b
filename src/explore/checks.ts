/** What must hold after every step, and at the end by use: the invariants, asked of a world. */

import { CMDQ_CONS, OFFSET } from '../spec/registers.ts';
import { effectOf } from './attached-table.ts';
import { pathOf } from './bench-host.ts';
import type { ModelDevice, Reach } from './guest-model.ts';
import { where } from './onlookers.ts';
import type { Invariant, Problem } from './problem.ts';
import type { World } from './world.ts';

const problem = (invariant: Invariant, text: string): Problem => ({ invariant, text });

/** Tries until what was refused has succeeded; each concern may hide another. */
const RETRIES = 6;
/** Turns in which what is under way comes to rest. */
const TURNS = 64;

/** Checks what can be checked without touching anything. */
export function check(world: World): Problem | undefined {
  return (
    checkErrors(world) ??
    checkQueue(world) ??
    checkAttachments(world) ??
    checkObjects(world) ??
    checkInterrupts(world)
  );
}

/** Checks everything, by use; afterwards the world is of no use any more. */
export function finish(world: World): Problem | undefined {
  return (
    settle(world) ??
    checkReach(world) ??
    recover(world) ??
    checkExact(world) ??
    checkIdempotence(world) ??
    checkEmpty(world)
  );
}

function checkErrors({ machine }: World): Problem | undefined {
  const { registers } = machine.smmu;
  const active = registers[OFFSET.GERROR >>> 2] ^ registers[OFFSET.GERRORN >>> 2];
  if (active !== 0) return problem('errors', `GERROR has 0x${active.toString(16)}.`);
  const error = CMDQ_CONS.ERR.of(registers[OFFSET.CMDQ_CONS >>> 2]);
  return error === 0 ? undefined : problem('errors', `CMDQ_CONS.ERR is ${error}.`);
}

const anyPlugged = ({ model }: World): boolean => model.devices.some(({ plugged }) => plugged);

function checkQueue(world: World): Problem | undefined {
  const { model, kernel, machine } = world;
  const { veventq, failures } = machine.state;
  const depths = [...kernel.objects.values()]
    .filter(({ kind }) => kind === 'veventq')
    .map(({ value }) => value);
  const wanted = model.eventqEnabled && anyPlugged(world) ? 2 ** model.eventqLog2 : undefined;
  const refused = failures.has('veventq') || failures.has('foundation') || failures.has('teardown');
  const found = depths.length === 0 ? undefined : depths[0];
  if (found !== veventq?.depth && !refused)
    return problem('veventq', `The host has ${show(found)}, and ${show(veventq?.depth)} is displayed.`);
  if (depths.length > 1 && !refused) return problem('veventq', `There are ${depths.length} vEVENTQs.`);
  if (found === wanted || refused) return undefined;
  return problem(
    'veventq',
    `EVENTQEN=${model.eventqEnabled ? 1 : 0}, ${anyPlugged(world) ? 'a' : 'no'} device is plugged: ` +
      `${show(wanted)} is due, and there is ${show(found)}.`,
  );
}

const show = (depth: number | undefined): string =>
  depth === undefined ? 'no vEVENTQ' : `a vEVENTQ of depth ${depth}`;

function checkAttachments(world: World): Problem | undefined {
  const { model, kernel, machine, devices } = world;
  const { failures, devices: shown } = machine.state;
  for (const [i, { name }] of devices.entries()) {
    const device = model.devices[i];
    const state = shown.find((one) => one.name === name);
    const table = kernel.attachmentOf(pathOf(i));
    const effect = effectOf(table);
    if (!device.plugged) {
      if (table !== undefined || state !== undefined)
        return problem('attachment', `${name} is not plugged, and it is still there.`);
      continue;
    }
    if (state === undefined) return problem('attachment', `${name} is plugged, and it is not displayed.`);
    const attached = effect === 'tripwire' ? 'abort' : effect;
    if (attached !== state.attached)
      return problem('attachment', `${name} is attached to ${attached}, and ${state.attached} is displayed.`);
    // A tripwire is for a guest that hears of it; for another it would fill the host's log.
    if (effect === 'tripwire' && !model.eventqEnabled && failures.size === 0)
      return problem('attachment', `${name} is on a tripwire, and EVENTQEN=0.`);
    const allowed = model.attachments(device);
    // What cannot be done leaves a device without access, never with another one.
    if (failures.size > 0) allowed.add('abort').add('none');
    if (!allowed.has(attached ?? 'none'))
      return problem(
        'attachment',
        `${name} is attached to ${attached}; it should be ${[...allowed].join(' or ')}.`,
      );
    if (failures.size > 0) continue;
    const vsid = model.isShadowed(device) ? undefined : device.sid;
    if (state.vsid !== vsid)
      return problem(
        'attachment',
        `The vDEVICE of ${name} has StreamID ${state.vsid}, the guest knows it by ${vsid}.`,
      );
  }
  return undefined;
}

function checkObjects(world: World): Problem | undefined {
  const { model, kernel, host, machine } = world;
  const live = new Map<string, number>();
  for (const { type } of host.sim.snapshotOfObjects()) live.set(type, (live.get(type) ?? 0) + 1);
  if (machine.state.failures.size > 0) return undefined;
  const plugged = model.devices.filter((device) => device.plugged).length;
  const known = model.devices.filter((device) => device.plugged && !model.isShadowed(device)).length;
  const one = plugged > 0 ? 1 : 0;
  const tables = new Map<string, number>();
  for (const { table } of kernel.objects.values())
    if (table !== undefined) tables.set(table, (tables.get(table) ?? 0) + 1);
  const used = new Set(world.devices.map((_, i) => kernel.attachmentOf(pathOf(i))));
  for (const [table, count] of tables) {
    if (count > 1) return problem('leaks', `There are ${count} equal tables: ${table}.`);
    // Abort and bypass tables and tripwires may stay as long as the vIOMMU.
    if (effectOf(table) === 'translate' && !used.has(table))
      return problem('leaks', `The table ${table} serves no device.`);
  }
  const expected: Record<string, number> = {
    ioas: one,
    hwpt_paging: one,
    viommu: one,
    hwpt_nested: one === 0 ? 0 : tables.size,
    device: plugged,
    vdevice: known,
    veventq: model.eventqEnabled ? one : 0,
  };
  for (const [kind, count] of Object.entries(expected))
    if ((live.get(kind) ?? 0) !== count)
      return problem(
        'leaks',
        `The host has ${live.get(kind) ?? 0} objects of kind ${kind}, and ${count} are due.`,
      );
  // Each device has an eventfd by which the host asks for it.
  const files = one + 2 * plugged + (model.eventqEnabled ? one : 0);
  if (host.sim.openFiles !== files)
    return problem('leaks', `${host.sim.openFiles} files are open, and ${files} are due.`);
  return undefined;
}

function checkInterrupts({ guest, model, interrupted }: World): Problem | undefined {
  const { length } = guest.pendingEvents();
  if (!model.isSetUp || length === 0 || interrupted) return undefined;
  return problem('interrupts', `${length} events wait, and no interrupt told the guest.`);
}

/** Lets all that is under way arrive, as a guest would have it that handles its interrupts. */
function settle(world: World): Problem | undefined {
  for (let turn = 0; turn < TURNS; turn++) {
    const delivers = world.host.tasks.length > 0;
    const found =
      (delivers ? (world.perform({ action: 'deliver', args: {} }) ?? check(world)) : undefined) ??
      world.perform({ action: 'take', args: {} }) ??
      check(world);
    if (found !== undefined) return found;
    if (world.host.tasks.length === 0 && world.guest.pendingEvents().length === 0)
      return world.ledger.check(world.events, world.overflow, true);
  }
  return problem('events', 'The machine does not come to rest.');
}

/** Where reads of every device go. */
function checkReach(world: World): Problem | undefined {
  const { model, machine } = world;
  const failing = machine.state.failures.size > 0;
  for (const [i, { name }] of world.devices.entries()) {
    const device = model.devices[i];
    const allowed = reaches(world, device, failing);
    const found = world.probe(i);
    if (allowed.has(found)) continue;
    const text = `A read by ${name} ends at ${where(found)}; allowed is ${[...allowed].map(where).join(' or ')}.`;
    return problem(found === 'abort' ? 'access' : 'isolation', text);
  }
  return undefined;
}

function reaches({ model }: World, device: ModelDevice, failing: boolean): Set<Reach> {
  if (!device.plugged) return new Set<Reach>(['abort']);
  const allowed = model.reaches(device);
  return failing ? allowed.add('abort') : allowed;
}

/** What the host refused is tried again, and succeeds. */
function recover(world: World): Problem | undefined {
  const { machine } = world;
  if (machine.state.failures.size === 0) return undefined;
  if (world.retries.length === 0)
    return problem('recovery', 'The host refused something, and nobody will try again.');
  for (let i = 0; i < RETRIES && machine.state.failures.size > 0; i++) {
    const found = world.perform({ action: 'retry', args: {} });
    if (found !== undefined) return found;
  }
  const [first] = machine.state.failures;
  if (first !== undefined) return problem('recovery', `${first[0]} stays refused: ${first[1].message}`);
  return check(world) ?? checkReach(world);
}

/** After the guest has said that everything may have changed, all is exactly as memory says. */
function checkExact(world: World): Problem | undefined {
  const { model, machine } = world;
  if (model.smmuEnabled) model.invalidateSte(undefined);
  machine.accelerator.streamsChanged(0, 0xffff_ffff);
  const found = check(world);
  if (found !== undefined) return found;
  const { kernel } = world;
  if (kernel.refusals.length > 0) return problem('calls', kernel.refusals.join('; '));
  return checkReach(world);
}

function checkIdempotence({ machine, kernel }: World): Problem | undefined {
  kernel.forget();
  const { accelerator } = machine;
  accelerator.streamsChanged(0, 0xffff_ffff);
  accelerator.eventQueueChanged();
  accelerator.retry();
  return kernel.ioctls.length === 0
    ? undefined
    : problem('idempotence', `Reconciling again made calls: ${kernel.ioctls.join(', ')}.`);
}

/** Everything is given back when the last device goes, and none of them reaches anything. */
function checkEmpty(world: World): Problem | undefined {
  for (const { name } of world.devices) {
    const found = world.perform({ action: 'unplug', args: { device: name } }) ?? checkObjects(world);
    if (found !== undefined) return found;
  }
  const left = world.host.sim.snapshotOfObjects().length;
  if (left > 0 || world.host.sim.openFiles > 0)
    return problem(
      'leaks',
      `Without devices the host keeps ${left} objects and ${world.host.sim.openFiles} files.`,
    );
  return checkReach(world);
}
