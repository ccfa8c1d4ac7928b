/**
 * Devices that do DMA beside what happens: after every step, where it can make no event, and if they race before and
 * after each call to the host in the middle of it.
 */

import type { Reach } from './guest-model.ts';
import type { Problem } from './problem.ts';
import type { Action, World } from './world.ts';

/** In words. */
export const where = (reach: Reach): string =>
  reach === 'abort' ? 'an abort' : reach === -1 ? 'unknown memory' : `frame ${reach}`;

export class Onlookers {
  /** Devices do DMA at every moment; then faults of theirs are not audited. */
  racing = false;
  readonly #world: World;
  /** By device: where DMA could go before the step, and where it went in it. */
  #before: Set<Reach>[] = [];
  #raced: Set<Reach>[] = [];

  constructor(world: World) {
    this.#world = world;
  }

  /**
   * Has devices read the page, where it can make no event. What they reach fills the caches, so that what is not
   * invalidated later shows; and it is looked at after every step, as states that seem equal may differ in their caches.
   */
  look(): Problem | undefined {
    const { model, devices, machine } = this.#world;
    const failing = machine.state.failures.size > 0;
    const mayHear = model.smmuEnabled && model.eventqEnabled;
    for (const [i, allowed] of this.#reaches().entries()) {
      if (failing) allowed.add('abort');
      if (mayHear && allowed.has('abort')) continue;
      const found = this.#world.read(i);
      if (allowed.has(found)) continue;
      return {
        invariant: found === 'abort' ? 'access' : 'isolation',
        text: `A read by ${devices[i].name} ends at ${where(found)}; allowed is ${[...allowed].map(where).join(' or ')}.`,
      };
    }
    return undefined;
  }

  /** Where DMA of each device may go now. */
  #reaches(): Set<Reach>[] {
    const { model } = this.#world;
    return model.devices.map((device) => {
      if (!device.plugged) return new Set<Reach>(['abort']);
      const reaches = model.reaches(device);
      // One that waits for its StreamID is attached anew when it gets it.
      return model.isShadowed(device) ? reaches.add('abort') : reaches;
    });
  }

  /** A step begins: until its end racing devices read the page whenever the host is called. */
  start(): void {
    if (!this.racing) return;
    const { devices, kernel } = this.#world;
    this.#before = this.#reaches();
    this.#raced = devices.map(() => new Set<Reach>());
    kernel.between = () => {
      for (const [i, raced] of this.#raced.entries()) raced.add(this.#world.probe(i));
    };
  }

  /**
   * The step is over. In the middle of it devices reach what they did before, or do now.
   * @param failing something was refused before.
   */
  check(action: Action, failing: boolean): Problem | undefined {
    if (!this.racing) return undefined;
    const { model, kernel, machine, devices } = this.#world;
    kernel.between = undefined;
    const before = this.#before;
    const after = this.#reaches();
    const refused = failing || kernel.failed > 0 || machine.state.failures.size > 0;
    for (const [i, raced] of this.#raced.entries())
      for (const reach of raced) {
        const { name } = devices[i];
        if (reach === 'abort' ? refused || this.#mayAbort(action, name) : false) continue;
        if (before[i].has(reach) || after[i].has(reach)) continue;
        // Also a device that is refused in the end was under the guest's SMMU for a moment.
        const comes = action.action === 'plug' && action.args.device === name;
        if (comes && model.reaches(model.devices[i]).has(reach)) continue;
        const invariant = reach === 'abort' ? 'hitless' : 'isolation';
        const where = reach === 'abort' ? 'aborts' : `goes to frame ${reach}`;
        return { invariant, text: `In the middle of ${action.action}, a read by ${name} ${where}.` };
      }
    return undefined;
  }

  /** A step about a device as a whole, or about all, stops its DMA for a moment; no other does. */
  #mayAbort({ action, args }: Action, name: string): boolean {
    if (action === 'reset' || action === 'migrate' || action === 'retry' || action === 'deliver') return true;
    return (action === 'plug' || action === 'unplug' || action === 'move') && args.device === name;
  }
}
