import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { LabGuest } from '../../src/lab/lab-guest.ts';
import type { RunEvent } from '../../src/machine/report.ts';
import { bootLab, PROGRAM } from './lab.ts';
import { STAGED } from './stage.ts';

/** edu reads and writes; iommu-testdev only writes. */
const EDU = '0000:00:06.0';
const TESTDEV = '0000:00:04.0';

const parse = (text: string): RunEvent[] =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as RunEvent);

/** What happened to the vEVENTQ and why, step by step. */
const states = (events: readonly RunEvent[]): unknown[] => events.filter(({ kind }) => kind === 'state');

/** The calls of the accelerator and their answers, without what is a process's own: addresses, descriptors, files. */
const calls = (events: readonly RunEvent[]): string[] =>
  events.flatMap((event) =>
    event.kind === 'operation'
      ? [
          `${event.operation} ${event.detail}: ${event.result}`.replaceAll(
            /((?:_uptr|user_va|fd|path)=)[\w/]+/g,
            '$1…',
          ),
        ]
      : [],
  );

/** The faults that the guest's driver took from its queue. */
const taken = (events: readonly RunEvent[]): string[] =>
  events.flatMap((event) => (event.kind === 'event' ? [`${event.type} ${event.sid} ${event.device}`] : []));

async function onEmbeddedHost(scenario: string): Promise<RunEvent[]> {
  const args = [join(STAGED, 'src/cli/main.js'), 'run', join(STAGED, 'scenarios', scenario), '--json'];
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 64 << 20 });
  return parse(stdout);
}

describe('vsmmu run --host linux', () => {
  let lab: LabGuest;
  let edu: string;
  let testdev: string;
  beforeAll(async () => {
    lab = await bootLab();
    edu = await lab.bindToVfio(EDU);
    testdev = await lab.bindToVfio(TESTDEV);
  });
  afterAll(async () => {
    await lab.close();
  });

  const run = async (words: string): Promise<{ status: number; events: RunEvent[] }> => {
    const { status, output } = await lab.run(`${PROGRAM} run ${words} --host linux --json`, 120_000);
    return { status, events: parse(output) };
  };
  const scenario = (name: string): string => `/lab/vsmmu/scenarios/${name}`;

  /** Nobody has a file of VFIO or iommufd open. */
  const nothingOpen = async (): Promise<void> => {
    const open = 'ls -l /proc/[0-9]*/fd 2> /dev/null | grep -cE "/dev/(iommu|vfio)"';
    expect(await lab.check(`${open} || true`)).toBe('0');
  };

  // First, so that the others show that the devices can be used again.
  it('gives everything back when it is told to end in the middle', async () => {
    const { output } = await lab.run(
      [
        ': > /tmp/out',
        `${PROGRAM} run --host linux --device nic0=${edu} --json > /tmp/out & pid=$!`,
        // In the second case, with a vEVENTQ and a device attached.
        'n=0; until grep -q \'"number":2\' /tmp/out || [ $n -gt 600 ]; do sleep 0.1; n=$((n+1)); done',
        'sleep 1; kill -TERM $pid; wait $pid; echo status $?',
      ].join('\n'),
    );
    expect(output.trim()).toBe('status 143');
    await nothingOpen();
  });

  it.each([
    // It finds edu by itself.
    ['three-orders.yaml', () => ''],
    ['kdump.yaml', () => `--device nic0=${edu}`],
    ['kexec-larger-queue.yaml', () => `--device nic0=${edu}`],
    ['two-devices.yaml', () => `--device nic0=${edu} --device disk0=${testdev}`],
  ])('%s ends as on the embedded host', async (name, devices) => {
    const { status, events } = await run(`${scenario(name)} ${devices()}`);
    const failed = events.filter((event) => event.kind === 'expectation' && !event.ok);
    expect(failed).toEqual([]);
    expect(status).toBe(0);
    expect(events[0]).toMatchObject({
      kind: 'scenario',
      host: expect.stringContaining(`nic0 is ${EDU} (edu)`),
    });
    const embedded = await onEmbeddedHost(name);
    expect(states(events)).toEqual(states(embedded));
    expect(calls(events)).toEqual(calls(embedded));
    expect(taken(events)).toEqual(taken(embedded));
    await nothingOpen();
  });

  it('says what is wrong with a device that is not there', async () => {
    const { status, output } = await lab.run(
      `${PROGRAM} run --host linux --device nic0=/dev/vfio/devices/vfio9`,
    );
    expect(status).toBe(3);
    expect(output).toContain('/dev/vfio/devices/vfio9');
    await nothingOpen();
  });

  it('leaves the kernel without complaint', async () => {
    const complaints = await lab.check('dmesg | grep -E "WARNING|BUG|Call trace|refcount|leak" || true');
    expect(complaints).toBe('');
  });
});
