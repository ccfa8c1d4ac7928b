import { describe, expect, it } from 'vitest';
import { narrator } from '../../src/cli/narrator.ts';
import { CONFIGURATIONS } from '../../src/explore/configurations.ts';
import { Walk } from '../../src/explore/schedule.ts';
import { runBareScenario } from '../../src/explore/replay.ts';
import { scenarioText } from '../../src/explore/scenario-text.ts';
import type { RunEvent } from '../../src/machine/report.ts';
import { parseScenario } from '../../src/machine/scenario/parse.ts';

function play(steps: readonly string[], devices: readonly string[] = ['nic0']): RunEvent[] {
  const text = `title: T
guest: bare
devices: { ${devices.map((name, i) => `${name}: { at: '00:0${i + 1}.0' }`).join(', ')} }
cases:
  - title: C
    steps:
${steps.map((step) => `      - ${step}`).join('\n')}
`;
  const events: RunEvent[] = [];
  runBareScenario(parseScenario(text, 's.yaml'), (event) => events.push(event));
  return events;
}

const failures = (events: readonly RunEvent[]): string[] =>
  events.flatMap((event) => (event.kind === 'expectation' && !event.ok ? [event.text] : []));

const TRANSLATING = [
  'setup',
  'plug: nic0',
  'ste: { device: nic0, is: translate, space: 1 }',
  'cfgi: nic0',
  'sync',
  'cr0: { smmuen: true, eventqen: true }',
] as const;

describe('a scenario for a bare guest', () => {
  it('takes a fault apart: it is with the host, then in the queue, then with the guest', () => {
    const events = play([
      ...TRANSLATING,
      'expect: { attached: { nic0: translate }, veventq: 1, ioctls: 31 }',
      'dma: { device: nic0, read: 0x21_f000, expect: ok }',
      'dma: { device: nic0, write: 0x21_e000, expect: abort }',
      'take',
      'expect: { events: [] }',
      'deliver',
      'take',
      'expect: { events: [{ type: F_TRANSLATION, device: nic0, iova: 0x21_e000, access: write }], overflow: false }',
      'check',
    ]);
    expect(failures(events)).toEqual([]);
    expect(events).toContainEqual(
      expect.objectContaining({ kind: 'dma', text: 'nic0 reads 64 bytes at 0x21f000: done, from frame 1.' }),
    );
  });

  it('shows a loss as overflow', () => {
    const fault = 'dma: { device: nic0, read: 0x21_e000 }';
    const events = play([
      ...TRANSLATING,
      fault,
      'deliver',
      fault,
      fault,
      'deliver',
      'take',
      'deliver',
      'deliver',
      'take',
      'deliver',
      'take',
      'expect: { overflow: true }',
      'check',
    ]);
    expect(failures(events)).toEqual([]);
  });

  it('ends with an account of its events: how many came, and whose were lost, and why', () => {
    const fault = (device: string): string[] => [`dma: { device: ${device}, read: 0x21_e000 }`, 'deliver'];
    const events = play(
      [
        'setup',
        'ste: { device: nic0, is: translate, space: 0 }',
        'ste: { device: nic1, is: translate, space: 1 }',
        'plug: nic0',
        'plug: nic1',
        'cr0: { smmuen: true, eventqen: true }',
        ...Array.from({ length: 7 }, () => fault('nic0')).flat(),
        ...fault('nic1'),
        'take',
        'unplug: nic0',
        'unplug: nic1',
      ],
      ['nic0', 'nic1'],
    );
    expect(failures(events)).toEqual([]);
    const account = events.find((event) => event.kind === 'events');
    // One in the guest's queue and four that waited; the last two of those seven, and one for the newcomer, gave way.
    expect(account).toEqual({
      kind: 'events',
      delivered: 2,
      waiting: 0,
      lost: { host_queue_full: 0, crowded_out: 3, guest_refused: 0, queue_closed: 3 },
      devices: {
        '0x8': { delivered: 2, lost: { crowded_out: 3, guest_refused: 0, queue_closed: 2 } },
        '0x10': { delivered: 0, lost: { crowded_out: 0, guest_refused: 0, queue_closed: 1 } },
      },
    });
    const lines: string[] = [];
    const narrate = narrator({ write: (line) => lines.push(line), verbose: false, colour: false });
    for (const event of events) narrate(event);
    expect(lines.at(-3)).toBe(
      '   Of the events 2 came to the guest. Lost: 3 that gave way to other devices (0x8: 3); ' +
        '3 when the vEVENTQ was closed (0x8: 2, 0x10: 1).',
    );
  });

  it('has calls fail, and what was refused succeed later', () => {
    const events = play([
      'setup',
      'fail: { ioctl: IOMMU_VIOMMU_ALLOC, errno: ENOMEM }',
      'plug: nic0',
      'expect: { objects: {} }',
      'plug: nic0',
      'fail: { ioctl: IOMMU_VEVENTQ_ALLOC, errno: ENOMEM }',
      'cr0: { eventqen: true }',
      'expect: { veventq: none }',
      'retry',
      'expect: { veventq: 1 }',
      'check',
    ]);
    expect(failures(events)).toEqual([]);
    expect(events.filter(({ kind }) => kind === 'note')).toHaveLength(1);
  });

  it('says which expectations were not met', () => {
    const events = play([
      ...TRANSLATING,
      'expect: { attached: { nic0: bypass } }',
      'dma: { device: nic0, read: 0, expect: ok }',
    ]);
    expect(failures(events)).toEqual([
      'the attachment of nic0 is bypass was expected, but it is translate',
      'the DMA was expected to end with ok',
    ]);
  });

  it('moves queues, tables, CDs, pages and devices', () => {
    const events = play([
      'setup',
      'plug: nic0',
      'move-eventq: { log2: 2, place: 1 }',
      'cr0: { eventqen: true }',
      'expect: { veventq: 4 }',
      'move-strtab: 1',
      'ste: { device: nic0, is: translate }',
      'cr0: { smmuen: true }',
      'expect: { attached: { nic0: translate } }',
      'cd: { space: 0, root: 2 }',
      'cfgi-cd: nic0',
      'tlbi: 0',
      'sync',
      'page: { space: 2, frame: 3 }',
      'tlbi',
      'sync',
      'dma: { device: nic0, read: 0x21_f000, bytes: 8, expect: ok }',
      'move: { device: nic0, at: "00:03.0" }',
      'expect: { attached: { nic0: abort } }',
      'gbpa: abort',
      'cr0: { smmuen: false }',
      'reset',
      'expect: { attached: { nic0: bypass }, veventq: none, viommu: true }',
      'unplug: nic0',
      'expect: { objects: {} }',
      'check',
    ]);
    expect(failures(events)).toEqual([]);
    expect(events).toContainEqual(
      expect.objectContaining({ kind: 'dma', text: 'nic0 reads 8 bytes at 0x21f000: done, from frame 3.' }),
    );
  });
});

describe('every schedule', () => {
  it.each(CONFIGURATIONS.map(({ name }) => [name]))('of %s is a scenario', (name) => {
    const configuration = CONFIGURATIONS.find((one) => one.name === name)!;
    const walk = new Walk(configuration);
    // One of each, as far as it can happen.
    for (const [event, { name: title }] of configuration.events.entries())
      if (walk.enabled().includes(event) && title !== 'kexec') walk.take({ event, failures: [] });
    const text = scenarioText(configuration, {
      problem: { invariant: 'leaks', text: "it's\nnothing" },
      schedule: configuration.events.map(({ name: title }) => title),
      actions: walk.actions,
      byUse: true,
    });
    const scenario = parseScenario(text, 's.yaml');
    expect(scenario.cases[0].steps.length).toBe(walk.actions.length + 1);
    expect(runBareScenario(scenario, () => {}).failed).toBe(0);
  });
});
