import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { requireHostLab, requirePeer } from '../../src/lab/host-lab.ts';
import { LAB_FILES } from '../../src/lab/lab-files.ts';
import type { LabGuest } from '../../src/lab/lab-guest.ts';
import { buildInitramfs } from '../../src/qemu/initramfs.ts';
import { ACTIONS, asOnPage, type Cost, rowOf, summary } from '../contract/costs.ts';
import type { Entry } from './inside/peer-trace.ts';
import type { Observed } from './inside/peer.ts';
import { bootLab } from './lab.ts';

const page = readFileSync(new URL('../../docs/ioctls.md', import.meta.url), 'utf8');

const TESTDEV = '0000:00:04.0';
const SECOND = '0000:00:05.0';
/** A device that Linux has a driver for, which does DMA when something is read from it. */
const RNG = '0000:00:08.0';

/** It boots a guest in a guest. */
const PEER_LIMIT_MS = 400_000;

/** What QEMU did for each action of the page. Its attempts to map BARs for DMA fail, and are not about the guest's SMMU. */
function measure(observed: readonly Observed[]): Record<string, readonly Entry[]> {
  const of = (action: string): Entry[] => {
    const found = observed.find((one) => one.action === action);
    if (found === undefined) throw new Error(`"${action}" was not observed`);
    return found.entries.filter(
      ({ what, failed }) => failed !== true || (what !== 'map' && what !== 'unmap'),
    );
  };
  const isCommand = ({ kind }: Entry): boolean => kind === 'command';
  const firstCommand = (entries: readonly Entry[]): number => entries.findIndex(isCommand);

  const one = of('start with 1 devices');
  const second = [...of('start with 2 devices')];
  for (const { what } of one)
    second.splice(
      second.findLastIndex((entry) => entry.what === what),
      1,
    );

  // From CR0=0 until SMMUEN=1: the commands that follow are of devices that are attached.
  const boot = of('boot');
  const probe = boot.slice(
    boot.findIndex(({ kind }) => kind === 'cr0'),
    boot.findIndex(({ kind, what }) => kind === 'cr0' && (Number(what) & 1) === 1),
  );
  const hot = of('hot plug');
  const reading = of('read of random numbers');
  const unmap = reading.findIndex(({ what }) => what === 'CMD_TLBI_NH_VA');
  const unplug = of('unplug');
  return {
    'plug of the first device, cold': one,
    'plug of a second device, cold': second,
    // What the guest's own commands cause comes later; and what strace saw, in the end.
    'plug of the first device, hot': [
      ...hot.slice(0, firstCommand(hot)),
      ...hot.filter(({ what }) => what === 'hw_info'),
    ],
    'probe of the driver, one device': probe,
    'attach to a domain': of('attach'),
    map: reading.slice(0, unmap),
    'unmap of one page': reading.slice(unmap, unmap + 1 + firstCommand(reading.slice(unmap + 1))),
    'to identity': of('to identity'),
    detach: of('detach'),
    'an event': of('event'),
    'shutdown of the driver': of('shutdown'),
    'system reset': of('reset'),
    'unplug of the last device': unplug.slice(unplug.findLastIndex(isCommand)),
  };
}

/** Names of the calls among what was done. */
const callsIn = (entries: readonly Entry[]): string[] =>
  entries.flatMap(({ kind, what }) => (kind === 'call' ? [what] : []));

const parts = await requireHostLab();
const peer = await requirePeer();

describe('docs/ioctls.md', () => {
  let lab: LabGuest;
  let folder: string;

  beforeAll(async () => {
    // What the guest of the guest boots.
    folder = mkdtempSync(join(tmpdir(), 'vsmmu-peer-'));
    copyFileSync(parts.kernel, join(folder, 'Image'));
    copyFileSync(parts.firmware, join(folder, 'firmware'));
    const initramfs = buildInitramfs(readFileSync(parts.busybox), readFileSync(LAB_FILES.init));
    writeFileSync(join(folder, 'initramfs'), initramfs);
    lab = await bootLab({
      machine: {
        virtualization: true,
        memoryMiB: 2048,
        devices: ['virtio-rng-pci,bus=pcie.0,addr=0x8,disable-legacy=on,iommu_platform=on'],
      },
      shares: [
        { name: 'peer', path: peer },
        { name: 'inner', path: folder },
      ],
    });
    for (const address of [TESTDEV, SECOND, RNG]) await lab.bindToVfio(address);
  });
  afterAll(async () => {
    await lab.close();
    rmSync(folder, { recursive: true });
  });

  it('says what each action costs on Linux itself', async () => {
    const output = await lab.check(`node /lab/vsmmu/test/lab/inside/costs.js ${TESTDEV} ${SECOND}`, 120_000);
    const costs = JSON.parse(output) as Record<string, Cost>;
    for (const action of Object.keys(ACTIONS))
      expect(asOnPage(costs[action]), action).toEqual(rowOf(page, action)?.slice(0, 2));
  });

  it('says what QEMU’s own was measured to ask for', { timeout: PEER_LIMIT_MS }, async () => {
    const program = `node /lab/vsmmu/test/lab/inside/peer.js /lab/inner ${RNG} ${TESTDEV}`;
    const measured = measure(JSON.parse(await lab.check(program, PEER_LIMIT_MS)) as Observed[]);
    const [, section] = page.split(/^## QEMU's, measured$/m);
    for (const [action, entries] of Object.entries(measured))
      expect(rowOf(section, action), action).toEqual(asOnPage(summary(callsIn(entries))));
  });
});
