/** The whole path as a user starts it: `vsmmu run --guest qemu`. `npm run test:qemu` builds it first. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import type { RunEvent } from '../../src/machine/report.ts';

const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

async function vsmmu(
  args: readonly string[],
  environment: Record<string, string> = {},
): Promise<{ status: number; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const [status] = (await once(child, 'close')) as [number];
  return { status, stdout, stderr };
}

describe('without what a real guest needs', () => {
  it('vsmmu says what is missing and how to get it, and exits with 3', async () => {
    const empty = mkdtempSync(join(tmpdir(), 'vsmmu-test-'));
    const { status, stderr } = await vsmmu(['run', '--guest', 'qemu'], { VSMMU_CACHE: empty, PATH: empty });
    rmSync(empty, { recursive: true });
    expect(status).toBe(3);
    expect(stderr).toMatch(/kernel: missing/);
    expect(stderr).toMatch(/vsmmu lab setup/);
  });
});

describe('an unmodified Linux in an unmodified QEMU', () => {
  let events: RunEvent[] = [];
  let status = -1;

  beforeAll(async () => {
    const result = await vsmmu(['run', '--guest', 'qemu', '--json']);
    status = result.status;
    events = result.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as RunEvent);
  }, 240_000);

  const caseEvents = (number: number): RunEvent[] => {
    const start = events.findIndex((event) => event.kind === 'case' && event.number === number);
    const next = events.findIndex((event) => event.kind === 'case' && event.number === number + 1);
    return events.slice(start, next < 0 ? undefined : next);
  };
  const consoleOf = (number: number): string[] =>
    caseEvents(number).flatMap((event) => (event.kind === 'guest' ? [event.text] : []));

  it('meets every expectation of the scenario', () => {
    const unmet = events.filter((event) => event.kind === 'expectation' && !event.ok);
    expect(unmet).toEqual([]);
    expect(status).toBe(0);
  });

  it.each([
    [1, 'cold-plugged'],
    [2, 'hot-plugged'],
  ])('case %i, %s: prints the fault with the right client, StreamID and IOVA', (number) => {
    expect(consoleOf(number).join('\n')).toMatch(
      /event: F_TRANSLATION client: 0000:01:00\.0 sid: 0x100 ssid: 0x0 iova: 0xdeadbeef000 ipa: 0x0/,
    );
  });

  it('has the vIOMMU before EVENTQEN if the device is cold-plugged, and after it if it is hot-plugged', () => {
    const first = (number: number, holds: (event: RunEvent & { kind: 'state' }) => boolean): number =>
      caseEvents(number).findIndex((event) => event.kind === 'state' && holds(event));
    expect(first(1, (s) => s.viommu !== null)).toBeLessThan(first(1, (s) => s.eventqen));
    expect(first(2, (s) => s.eventqen)).toBeLessThan(first(2, (s) => s.viommu !== null));
    for (const number of [1, 2]) {
      for (const event of caseEvents(number))
        if (event.kind === 'state')
          expect(event.veventq !== null).toBe(event.eventqen && event.viommu !== null);
    }
  });

  it('compares 64 MiB of data equal in both cases', () => {
    for (const number of [1, 2]) {
      const texts = caseEvents(number).flatMap((event) =>
        event.kind === 'expectation' && event.ok ? [event.text] : [],
      );
      expect(texts).toContain('64 MiB written to disk0 and read back compare equal');
    }
  });

  it('has nothing to complain about: no SMMU error, no time-out, no lost interrupt in the guest', () => {
    const complaints =
      /CMD_SYNC timeout|CMDQ|EVTQ write aborted|unexpected global error|nobody cared|I\/O timeout|nvme.*timeout/i;
    expect([...consoleOf(1), ...consoleOf(2)].filter((line) => complaints.test(line))).toEqual([]);
  });
});
