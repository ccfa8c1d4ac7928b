import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { LabGuest } from '../../src/lab/lab-guest.ts';
import type { RunEvent } from '../../src/machine/report.ts';
import { bootLab, PROGRAM } from './lab.ts';

/** On a bus of the root complex, and in a slot behind a root port. */
const FIXED = '0000:00:04.0';
const IN_SLOT = '0000:21:00.0';

/** Looks for events again and again, for longer than anybody should have to wait; in the end nothing is left. */
const SCENARIO = [
  'title: a device that the host takes away',
  'devices: { nic0: { at: "01:00.0" } }',
  'cases:',
  '  - title: while its guest uses it',
  '    steps:',
  '      - plug: nic0',
  '      - probe: {}',
  '      - attach: nic0',
  '      - map: { device: nic0, iova: 0x10000000 }',
  '      - dma: { device: nic0, write: 0x10000000, expect: ok }',
  ...Array.from({ length: 40 }, () => '      - expect: { events: [] }'),
  '      - expect: { viommu: false, veventq: none, objects: { device: 0, viommu: 0, vdevice: 0 } }',
].join('\n');

describe('a device that is in use and that the host takes away', () => {
  let lab: LabGuest;
  beforeAll(async () => {
    // Without it Linux leaves slots alone, as the kernel has no ASPM and so does not ask the firmware for them.
    lab = await bootLab({ append: 'pcie_ports=native' });
    await lab.check(`cat > /tmp/removal.yaml << 'END'\n${SCENARIO}\nEND`);
  });
  afterAll(async () => {
    await lab.close();
  });

  it.each([
    ['by unbinding it from vfio-pci', FIXED, `echo ${FIXED} > /sys/bus/pci/drivers/vfio-pci/unbind`],
    ['by removing it', FIXED, `echo 1 > /sys/bus/pci/devices/${FIXED}/remove`],
    ['by turning its slot off', IN_SLOT, 'echo 0 > /sys/bus/pci/slots/0/power'],
  ])('%s is let go at once, and the run goes on without it', async (_how, address, take) => {
    const path = await lab.bindToVfio(address);
    const { output } = await lab.run(
      [
        ': > /tmp/out; rm -f /tmp/taken',
        `${PROGRAM} run /tmp/removal.yaml --host linux --device nic0=${path} --json > /tmp/out & pid=$!`,
        'n=0; until grep -q \'"outcome":"ok"\' /tmp/out || [ $n -gt 600 ]; do sleep 0.1; n=$((n+1)); done',
        `( ${take}; echo yes > /tmp/taken ) &`,
        // A kernel that waits for its device waits for ever.
        'n=0; until [ -e /tmp/taken ] || ! [ -e /proc/$pid ] || [ $n -gt 600 ]; do sleep 0.1; n=$((n+1)); done',
        '[ -e /proc/$pid ] && echo running',
        'wait $pid; echo status $?',
      ].join('\n'),
      120_000,
    );
    expect(output.trim().split('\n')).toEqual(['running', 'status 0']);
    const events = (await lab.check('cat /tmp/out')).split('\n').map((line) => JSON.parse(line) as RunEvent);
    expect(events).toContainEqual({
      kind: 'note',
      text: 'nic0: the host takes the device away, so it is unplugged.',
    });
    const drivers = await lab.check(`[ -e /sys/bus/pci/devices/${address}/driver ] || echo none`);
    expect(drivers).toBe('none');
    await lab.check('echo 1 > /sys/bus/pci/rescan');
  });

  it('leaves the kernel without complaint', async () => {
    const complaints = await lab.check('dmesg | grep -E "WARNING|BUG|Call trace|refcount|leak" || true');
    expect(complaints).toBe('');
  });
});
