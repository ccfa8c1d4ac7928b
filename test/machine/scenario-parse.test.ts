import { describe, expect, it } from 'vitest';
import { parseScenario, ScenarioError } from '../../src/machine/scenario/parse.ts';

const HEAD = 'title: T\ndevices:\n  nic0: {}\ncases:\n  - title: C\n    steps:\n';

function complaints(text: string, guest?: 'reference' | 'qemu'): string[] {
  try {
    parseScenario(text, 's.yaml', guest);
  } catch (error) {
    if (error instanceof ScenarioError) return error.message.split('\n');
    throw error;
  }
  return [];
}

describe('a scenario file that is wrong', () => {
  it.each([
    ['', 's.yaml:1:1: the file is empty'],
    [
      'title: [',
      's.yaml:1:9: Flow sequence in block collection must be sufficiently indented and end with a ]',
    ],
    ['title: T\ncases: []\ndevices: {}\n', 's.yaml:2:8: cases: at least one case is expected'],
    ['title: 5\ncases: [{title: c, steps: []}]\ndevices: {}\n', 's.yaml:1:8: title: text is expected'],
    ['cases: [{title: c, steps: []}]\ndevices: {}\n', 's.yaml:1:1: title is missing'],
    [
      'title: t\ntitel: x\ncases: [{title: c, steps: []}]\ndevices: {}\n',
      's.yaml:2:1: titel is not known here',
    ],
    [
      'title: t\ncases: [{title: c, steps: []}]\ndevices: {NIC: {}}\n',
      's.yaml:3:11: devices.NIC: a name of lower-case letters, digits and dashes is expected',
    ],
    [
      'title: t\ncases: [{title: c, steps: []}]\ndevices:\n  a: {at: "01:00.0"}\n  b: {at: "01:00.0"}\n',
      's.yaml:5:6: devices.b: 01:00.0 is taken by another device',
    ],
  ])('%j', (text, message) => expect(complaints(text)).toEqual([message]));

  it.each([
    ['- plugg: nic0', /^s\.yaml:7:9: there is no action "plugg"; there are plug, unplug, /],
    ['- { plug: nic0, probe: {} }', /^s\.yaml:7:9: a step is one action/],
    ['- plug: nic1', /^s\.yaml:7:15: plug: there is no device "nic1" under "devices"$/],
    ['- plug', /^s\.yaml:7:9: plug\.device is missing$/],
    [
      '- map: { device: nic0, iova: -1 }',
      /^s\.yaml:7:36: map\.iova: a number from 0 to 2\^64 - 1 is expected$/,
    ],
    ['- map: { device: nic0, iova: "0x1_0000_0000_0000_0000" }', /a number from 0 to 2\^64 - 1/],
    ['- map: { device: nic0 }', /^s\.yaml:7:14: map\.iova is missing$/],
    ['- map: { device: nic0, iova: 0, size: 0x1000, acess: r }', /acess is not known here$/],
    ['- map: { device: nic0, iova: 0, access: x }', /map\.access: one of rw, r, w is expected$/],
    ['- dma: { device: nic0 }', /exactly one of read and write/],
    ['- dma: { device: nic0, read: 0, write: 0 }', /exactly one of read and write/],
    ['- dma: { device: nic0, read: 0, bytes: 0 }', /dma\.bytes: a number from 1 to 1048576 is expected$/],
    ['- expect: { veventq: maybe }', /expect\.veventq: "none" or a depth is expected$/],
    ['- expect: { events: [{ type: F_TRANSLATION, device: nic9 }] }', /there is no device "nic9"/],
    ['- cfgi', /^s\.yaml:7:9: cfgi needs --guest bare; this scenario has the reference guest$/],
    ['- boot', /^s\.yaml:7:9: boot needs --guest qemu; this scenario has the reference guest$/],
  ])('%s', (step, message) => {
    const found = complaints(`${HEAD}      ${step}\n`);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(message);
  });

  it('of a bare guest keeps its devices on bus 00', () => {
    const text =
      'title: T\nguest: bare\ndevices:\n  a: {}\n  b: { at: "01:00.0" }\ncases:\n  - title: C\n    steps:\n      - move: { device: a, at: "02:00.0" }\n';
    expect(complaints(text)).toEqual([
      's.yaml:5:6: devices.b: 01:00.0 is not on bus 00, where a bare guest has its devices',
      's.yaml:9:15: move: 02:00.0 is not on bus 00, where a bare guest has its devices',
    ]);
  });

  it('gets all its complaints at once, in file order', () => {
    expect(
      complaints(`${HEAD}      - plug: x\n      - probe\n      - unplug: y\n`).map(
        (line) => line.split(' ')[0],
      ),
    ).toEqual(['s.yaml:7:15:', 's.yaml:9:17:']);
  });
});

describe('a scenario file', () => {
  it('keeps 64-bit addresses exact and defaults in place', () => {
    const { cases, devices } = parseScenario(
      `${HEAD}      - plug: nic0\n      - probe\n      - map: { device: nic0, iova: 0xffff_ffff_ffff_f000 }\n      - map: { device: nic0, iova: 0xfffffffffffff000 }\n      - dma: { device: nic0, read: "18446744073709547520" }\n`,
      's.yaml',
    );
    expect(devices).toEqual([{ name: 'nic0', function: 'dma-tester', at: '01:00.0' }]);
    expect(cases[0].steps).toEqual([
      { action: 'plug', args: { device: 'nic0' }, line: 7 },
      { action: 'probe', args: { kdump: false }, line: 8 },
      {
        action: 'map',
        args: { device: 'nic0', iova: 0xffff_ffff_ffff_f000n, size: 0x1000n, access: 'rw' },
        line: 9,
      },
      {
        action: 'map',
        args: { device: 'nic0', iova: 0xffff_ffff_ffff_f000n, size: 0x1000n, access: 'rw' },
        line: 10,
      },
      { action: 'dma', args: { device: 'nic0', read: 0xffff_ffff_ffff_f000n, bytes: 64 }, line: 11 },
    ]);
  });

  it('can be JSON', () => {
    const text = JSON.stringify({
      title: 'T',
      devices: { a: {} },
      cases: [{ title: 'C', steps: ['probe', { plug: 'a' }] }],
    });
    expect(parseScenario(text, 's.json').cases[0].steps.map((step) => step.action)).toEqual([
      'probe',
      'plug',
    ]);
  });
});
