import { expect, it } from 'vitest';
import { SimHost } from '../../src/host/sim/sim-host.ts';
import { EmbeddedHost } from '../../src/machine/embedded-host.ts';
import type { RunEvent } from '../../src/machine/report.ts';
import { parseScenario } from '../../src/machine/scenario/parse.ts';
import { runReferenceScenario } from '../../src/machine/scenario/reference-run.ts';

const SCENARIO = `
title: a device that the host takes away
devices:
  nic0: { function: dma-tester, at: "01:00.0" }
cases:
  - title: in the middle
    steps:
      - plug: nic0
      - probe: {}
      - attach: nic0
      - map: { device: nic0, iova: 0x1000_0000 }
      - expect: { attached: {}, viommu: false, veventq: none, objects: { device: 0, viommu: 0, vdevice: 0 } }
      - dma: { device: nic0, write: 0x1000_0000, expect: abort }
`;

it('a device that the host takes away is unplugged, said so, and let go', async () => {
  const parsed = parseScenario(SCENARIO, 'removal.yaml');
  const events: RunEvent[] = [];
  let host: EmbeddedHost | undefined;
  let gone: boolean | undefined;
  await runReferenceScenario(
    parsed,
    (event) => {
      events.push(event);
      const kernel = host?.kernel;
      if (event.kind === 'step' && event.action === 'map' && kernel instanceof SimHost)
        gone = kernel.removeDevice('/dev/vfio/devices/vfio0');
    },
    ({ scenario: { devices, host: wanted }, scheduler }) =>
      (host = new EmbeddedHost({ devices, smmu: wanted.smmu, scheduler })),
  );
  // It was in use, so it has to be asked for.
  expect(gone).toBe(false);
  const notes = events.flatMap((event) => (event.kind === 'note' ? [event.text] : []));
  expect(notes).toContain('nic0: the host takes the device away, so it is unplugged.');
  const expectations = events.filter((event) => event.kind === 'expectation');
  expect(expectations.length).toBeGreaterThan(4);
  expect(expectations.filter(({ ok }) => !ok)).toEqual([]);
  expect(host?.objects()).toEqual({});
});
