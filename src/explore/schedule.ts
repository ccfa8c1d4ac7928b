/** Schedules: what happened, in order, as the explorer writes it down and plays it again. */

import type { ErrnoName } from '../iommufd/uapi/errno.ts';
import type { Configuration } from './configuration.ts';
import type { Problem } from './problem.ts';
import { type Action, World } from './world.ts';
import type { Failure } from './watched-kernel.ts';

/** One entry of a schedule: an event of the configuration, and which calls fail in it. */
export interface Move {
  readonly event: number;
  readonly failures: readonly Failure[];
}

/** A world on its way through a schedule, with the place in the driver's program. */
export class Walk {
  readonly configuration: Configuration;
  readonly world: World;
  /** Every step so far, to be written down. */
  readonly actions: Action[] = [];
  readonly moves: Move[] = [];
  failuresLeft: number;
  /** What a look around after the last step found. */
  found: Problem | undefined;
  programCounter = 0;

  constructor(configuration: Configuration) {
    this.configuration = configuration;
    this.failuresLeft = configuration.failures;
    this.world = new World(configuration.devices);
    for (const action of configuration.start) this.#perform(action);
  }

  /** What else of the state is not the world's: the explorer's own part. */
  get text(): string {
    return `${this.failuresLeft}.${this.programCounter}`;
  }

  /** Numbers of the events that can happen now. */
  enabled(): number[] {
    const { events, program } = this.configuration;
    const numbers: number[] = [];
    for (const [number, event] of events.entries()) {
      if (event.program === 'next' && this.programCounter >= program.length) continue;
      if (event.program === 'restart' && this.programCounter === 0) continue;
      if (event.enabled(this.world)) numbers.push(number);
    }
    return numbers;
  }

  /** Lets an event happen. @returns what it did that must not be, by itself. */
  take(move: Move): Problem | undefined {
    this.moves.push(move);
    const { event: number, failures } = move;
    const event = this.configuration.events[number];
    let action = event.action(this.world);
    if (event.program === 'next') action = this.configuration.program[this.programCounter++];
    if (event.program === 'restart') this.programCounter = 0;
    if (action === undefined) return undefined;
    // A driver does not outlive its machine.
    if (action.action === 'reset') this.programCounter = 0;
    let problem: Problem | undefined;
    for (const step of event.first ?? []) problem ??= this.#perform(step) ?? this.found;
    for (const { ioctl, errno, nth } of failures) {
      this.failuresLeft -= 1;
      this.#perform({ action: 'fail', args: { ioctl, errno, nth } });
    }
    return problem ?? this.#perform(action);
  }

  #perform(action: Action): Problem | undefined {
    this.actions.push(action);
    const problem = this.world.perform(action);
    // A way that is gone again has to leave the same caches behind.
    this.found = action.action === 'fail' ? undefined : this.world.onlookers.look();
    return problem;
  }
}

/** How each call is made to fail; others cannot, or nothing depends on them. */
const ERRNOS: Readonly<Record<string, readonly ErrnoName[]>> = {
  IOMMU_DESTROY: ['EBUSY'],
  IOMMU_IOAS_ALLOC: ['ENOMEM'],
  IOMMU_IOAS_MAP: ['ENOMEM'],
  IOMMU_HWPT_ALLOC: ['ENOMEM'],
  IOMMU_GET_HW_INFO: ['EFAULT'],
  IOMMU_HWPT_INVALIDATE: ['EIO', 'ETIMEDOUT'],
  IOMMU_VIOMMU_ALLOC: ['ENOMEM'],
  IOMMU_VDEVICE_ALLOC: ['ENOMEM'],
  IOMMU_VEVENTQ_ALLOC: ['ENOMEM'],
  VFIO_DEVICE_BIND_IOMMUFD: ['EINVAL'],
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: ['ENOMEM'],
  VFIO_DEVICE_DETACH_IOMMUFD_PT: ['EIO'],
  VFIO_DEVICE_RESET: ['EIO'],
};

/**
 * The failures that a step could meet, given the calls that it made.
 * @param ioctls names in order. @param after how many of them come before the first that may fail.
 */
export function possibleFailures(
  ioctls: readonly string[],
  after: number,
): { at: number; failure: Failure }[] {
  const counts = new Map<string, number>();
  const found: { at: number; failure: Failure }[] = [];
  for (const [at, ioctl] of ioctls.entries()) {
    const nth = (counts.get(ioctl) ?? 0) + 1;
    counts.set(ioctl, nth);
    if (at < after) continue;
    for (const errno of ERRNOS[ioctl] ?? []) found.push({ at, failure: { ioctl, nth, errno } });
  }
  return found;
}
