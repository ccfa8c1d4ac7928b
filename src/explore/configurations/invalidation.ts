/** What is cached, and how it goes: pages, CDs and STEs that change. */

import { BARE_PAGE } from '../../guest/bare-guest.ts';
import type { Configuration } from '../configuration.ts';
import {
  cd,
  cfgi,
  cfgiCd,
  cfgiCdAll,
  dma,
  NIC0,
  NIC1,
  page,
  plug,
  RESET,
  RETRY,
  SMMUEN,
  ste,
  SYNC,
  tlbi,
  tlbiVa,
  unplug,
} from '../events.ts';
import { BASE, dmaStep, plugStep, START, steStep } from './start.ts';

export const CACHES: Configuration = {
  ...BASE,
  name: 'caches',
  about:
    'one device that translates: pages and STEs change, with and without invalidation, resets, and calls that fail',
  devices: [NIC0],
  start: [
    ...START,
    steStep(NIC0, 0),
    plugStep(NIC0),
    { action: 'cr0', args: { smmuen: true } },
    dmaStep(NIC0),
  ],
  events: [
    dma(NIC0, 0, BARE_PAGE),
    page(0, undefined),
    page(0, 3),
    ste(NIC0, 'translate', 1),
    ste(NIC0, 'translate', 0),
    cfgi(NIC0),
    tlbi(0),
    SYNC,
    unplug(NIC0, 0),
    plug(NIC0, 0),
    RETRY,
    ...SMMUEN,
    ...RESET,
  ],
  failures: 1,
  depth: 6,
};

export const COMMANDS: Configuration = {
  ...BASE,
  name: 'commands',
  about: 'two devices that translate: every kind of invalidation, alone and together, and calls that fail',
  devices: [NIC0, NIC1],
  start: [
    ...START,
    steStep(NIC0, 0),
    steStep(NIC1, 1),
    plugStep(NIC0),
    plugStep(NIC1),
    { action: 'cr0', args: { smmuen: true } },
    dmaStep(NIC0),
    dmaStep(NIC1),
  ],
  events: [
    dma(NIC0, 0, BARE_PAGE),
    dma(NIC1, 1, BARE_PAGE),
    page(0, undefined),
    page(1, 3),
    tlbi(0),
    tlbi(1),
    tlbi(),
    tlbiVa(0),
    tlbiVa(1, true),
    tlbiVa(),
    SYNC,
    RETRY,
  ],
  failures: 2,
  depth: 7,
};

export const CONTEXTS: Configuration = {
  ...BASE,
  name: 'contexts',
  about: 'two devices that translate: CDs change, with and without invalidation, and calls that fail',
  devices: [NIC0, NIC1],
  start: [
    ...START,
    steStep(NIC0, 0),
    steStep(NIC1, 1),
    // Nothing is cached of what is not mapped: what a device reaches tells which CD it uses.
    { action: 'page', args: { space: 1 } },
    plugStep(NIC0),
    plugStep(NIC1),
    { action: 'cr0', args: { smmuen: true } },
    dmaStep(NIC1),
    { action: 'cd', args: { space: 1, root: 2 } },
  ],
  events: [
    cd(1, 1),
    cd(1, 2),
    cd(0, 2),
    page(1, 3),
    cfgiCd(NIC0),
    cfgiCd(NIC1),
    cfgiCdAll(NIC1),
    tlbi(1),
    tlbi(),
    SYNC,
    unplug(NIC0, 0),
    RETRY,
  ],
  failures: 2,
  depth: 6,
};
