/** What a single step must do, and must not: compared with how things were before it. */

import { pathOf } from './bench-host.ts';
import type { Problem } from './problem.ts';
import type { Action, World } from './world.ts';

/** How things are before a step. */
export interface Before {
  /** What each device is attached to, as the kernel saw it. */
  readonly attachments: readonly (string | undefined)[];
  /** There should be a vEVENTQ. */
  readonly wantsQueue: boolean;
  /** Something is refused by the host. */
  readonly failing: boolean;
  /** A device waits for another to leave its StreamID: it is attached anew when it gets it, also to the same table. */
  readonly waits: boolean;
}

export const beforeStep = (world: World): Before => ({
  attachments: attachmentsOf(world),
  wantsQueue: world.wantsQueue,
  failing: world.machine.state.failures.size > 0,
  waits: world.model.devices.some((device) => world.model.isShadowed(device)),
});

export function checkStep(world: World, action: Action, before: Before): Problem | undefined {
  return (
    (action.action === 'plug' ? checkPlug(world, action.args.device) : undefined) ??
    world.onlookers.check(action, before.failing) ??
    (before.failing || world.kernel.failed > 0 || world.machine.state.failures.size > 0
      ? undefined
      : (checkHitless(world, action, before) ?? checkSameQueue(world, action, before)))
  );
}

const attachmentsOf = ({ devices, kernel }: World): (string | undefined)[] =>
  devices.map((_, i) => kernel.attachmentOf(pathOf(i)));

/** A plug that cannot be served is refused: one that succeeds has attached the device to something. */
function checkPlug(world: World, name: string): Problem | undefined {
  const { model, kernel } = world;
  const i = world.indexOf(name);
  if (!model.devices[i].plugged || kernel.attachmentOf(pathOf(i)) !== 'nothing') return undefined;
  return { invariant: 'attachment', text: `${name} was plugged, and is attached to nothing.` };
}

/** Steps in which only what changes may be attached anew. */
const STEADY: readonly Action['action'][] = ['cfgi', 'cr0', 'gbpa', 'plug', 'unplug'];

/** A translation gives way to another in one step, and what stays is not touched. */
function checkHitless(world: World, { action }: Action, before: Before): Problem | undefined {
  if (!STEADY.includes(action) || before.waits) return undefined;
  const { ioctls } = world.kernel;
  let changed = 0;
  for (const [i, table] of attachmentsOf(world).entries()) if (table !== before.attachments[i]) changed += 1;
  const attaches = ioctls.filter((name) => name === 'VFIO_DEVICE_ATTACH_IOMMUFD_PT').length;
  const detaches = ioctls.filter((name) => name === 'VFIO_DEVICE_DETACH_IOMMUFD_PT').length;
  // One that leaves is detached.
  if (attaches > changed || detaches > (action === 'unplug' ? changed : 0))
    return {
      invariant: 'hitless',
      text: `${changed} devices needed another table, and there were ${attaches} attachments and ${detaches} detachments.`,
    };
  if (action !== 'cfgi') return undefined;
  // What was invalidated before has to be done before the CFGI; the rest is for a change.
  const others = ioctls.filter((name) => name !== 'IOMMU_HWPT_INVALIDATE');
  if (changed === 0 && others.length > 0)
    return { invariant: 'hitless', text: `Nothing changed, and there were calls: ${others.join(', ')}.` };
  return undefined;
}

/** A vEVENTQ lives as long as it is wanted: with it go the events that are in it. */
function checkSameQueue(world: World, { action }: Action, { wantsQueue }: Before): Problem | undefined {
  if (!wantsQueue || !world.wantsQueue || action === 'migrate') return undefined;
  if (!world.kernel.ioctls.includes('IOMMU_VEVENTQ_ALLOC')) return undefined;
  return { invariant: 'veventq', text: 'There was a vEVENTQ already, and it gave way to a new one.' };
}
