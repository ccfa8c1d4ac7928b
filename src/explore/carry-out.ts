/** What each step does: to the machine, and to the model of what the guest has said. */

import { BARE_PAGE } from '../guest/bare-guest.ts';
import { requesterId } from '../machine/pci-address.ts';
import { OUTCOME } from '../smmu/transaction.ts';
import { OFFSET } from '../spec/registers.ts';
import { pathOf } from './bench-host.ts';
import type { ModelDevice } from './guest-model.ts';
import { reachOf } from './reach-of.ts';
import type { Action, World } from './world.ts';

/** Does what a step says to the world. What makes no sense now does nothing. @throws HostError */
export function carryOut(world: World, action: Action): void {
  const { machine, guest, model, host, ledger } = world;
  switch (action.action) {
    case 'plug': {
      const i = world.indexOf(action.args.device);
      const device = model.devices[i];
      if (device.plugged) return;
      host.provide(i);
      machine.plug(action.args.device, pathOf(i), device.sid);
      device.plugged = true;
      model.arrives(device);
      return;
    }
    case 'unplug': {
      const device = model.devices[world.indexOf(action.args.device)];
      if (device.plugged) world.goes(device);
      machine.unplug(action.args.device);
      return;
    }
    case 'move': {
      const device = model.devices[world.indexOf(action.args.device)];
      model.leaves(device);
      device.sid = requesterId(action.args.at);
      model.arrives(device);
      machine.accelerator.setSid(action.args.device, device.sid);
      return;
    }
    case 'reset':
      model.reset();
      world.interrupted = false;
      ledger.moved();
      machine.reset();
      return;
    case 'setup':
      if (machine.smmu.registers[OFFSET.CR0 >>> 2] !== 0) return;
      guest.setUp();
      model.isSetUp = true;
      ledger.moved();
      return;
    case 'cr0': {
      const { smmuen = model.smmuEnabled, eventqen = model.eventqEnabled, cmdqen } = action.args;
      if (smmuen !== model.smmuEnabled) model.refreshAll();
      model.smmuEnabled = smmuen;
      model.eventqEnabled = eventqen;
      if (cmdqen !== undefined) model.isSetUp = cmdqen;
      guest.setCr0(action.args);
      return;
    }
    case 'gbpa':
      model.gbpaAbort = action.args.to === 'abort';
      guest.setGbpa(model.gbpaAbort);
      return;
    case 'move-eventq':
      if (model.eventqEnabled) return;
      model.eventqLog2 = action.args.log2;
      model.eventqPlace = action.args.place;
      ledger.moved();
      world.interrupted = false;
      guest.moveEventQueue(action.args.log2, action.args.place);
      return;
    case 'move-strtab':
      if (model.smmuEnabled) return;
      model.streamTable = action.args.table;
      model.refreshAll();
      guest.moveStreamTable(action.args.table);
      return;
    case 'ste': {
      const { device, is, space } = action.args;
      const { sid } = model.devices[world.indexOf(device)];
      model.storeSte(sid, is === 'translate' ? space : is);
      guest.storeSte(sid, is, space);
      return;
    }
    case 'cd':
      model.storeCd(action.args.space, action.args.root);
      guest.storeCd(action.args.space, action.args.root);
      return;
    case 'page':
      model.storePage(action.args.space, action.args.frame);
      guest.storePage(action.args.space, action.args.frame);
      return;
    case 'cfgi': {
      const { device, log2 } = action.args;
      const sid = device === undefined ? undefined : model.devices[world.indexOf(device)].sid;
      model.invalidateSte(sid, log2);
      guest.invalidateSte(sid, log2);
      return;
    }
    case 'cfgi-cd': {
      const { sid } = model.devices[world.indexOf(action.args.device)];
      model.invalidateCd(sid);
      model.issued(`cd${action.args.all === true ? 's' : ''}${sid}`);
      guest.invalidateCd(sid, action.args.all);
      return;
    }
    case 'tlbi':
      model.invalidateTlb(action.args.space);
      model.issued(`tlb${action.args.space ?? ''}`);
      guest.invalidateTlb(action.args.space);
      return;
    case 'tlbi-va': {
      const { space, range = false } = action.args;
      model.invalidateTlb(space);
      model.issued(`va${space ?? ''}${range ? 'r' : ''}`);
      guest.invalidatePage(space, range);
      return;
    }
    case 'sync':
      guest.sync();
      model.sync();
      return;
    case 'take': {
      const pending = guest.pendingEvents().length;
      const count = action.args.count ?? pending;
      // Room may let others in at once, with another interrupt.
      if (count >= pending) world.interrupted = false;
      world.taken.push(...guest.takeEvents(count).events);
      ledger.took(Math.min(count, pending), count >= pending);
      return;
    }
    case 'deliver':
      host.tasks.shift()?.run();
      return;
    case 'remove': {
      const i = world.indexOf(action.args.device);
      model.devices[i].leaving = model.devices[i].plugged;
      host.label = action.args.device;
      host.sim.removeDevice(pathOf(i));
      host.label = '';
      return;
    }
    case 'race':
      world.onlookers.racing = true;
      world.audited = false;
      return;
    case 'migrate':
      world.migrate();
      return;
    case 'retry':
      world.retries.shift()?.();
      return;
    case 'dma':
      dma(world, action.args);
      return;
    default:
      throw new RangeError(`${action.action} is not for a bare guest`);
  }
}

function dma(
  world: World,
  { device, read, write, bytes: size }: Extract<Action, { action: 'dma' }>['args'],
): void {
  const i = world.indexOf(device);
  const { model, host, ledger } = world;
  const iova = write ?? read ?? 0n;
  const bytes = new Uint8Array(size);
  const ste = expectsFaults(world, model.devices[i]) ? model.certainSte(model.devices[i]) : undefined;
  const outcome = write === undefined ? host.read(i, iova, bytes) : host.write(i, iova, bytes);
  const ok = outcome === OUTCOME.Ok;
  const reach = ok && write === undefined && iova === BigInt(BARE_PAGE) ? reachOf(bytes) : undefined;
  world.lastDma = { ok, reach: ok ? reach : 'abort' };
  world.fills(i, ok ? (reach ?? 'abort') : 'abort');
  if (ok || ste === undefined) return;
  // 7.3.4: C_BAD_STE has no address.
  if (ste === 'invalid') ledger.fault('C_BAD_STE', model.devices[i].sid, 0n);
  else if (typeof ste === 'number') ledger.fault('F_TRANSLATION', model.devices[i].sid, iova);
}

/** A fault of this device would come to the guest: there is a vEVENTQ, and no failure is in the way. */
function expectsFaults({ model, machine }: World, { plugged }: ModelDevice): boolean {
  return plugged && model.smmuEnabled && model.eventqEnabled && machine.state.failures.size === 0;
}
