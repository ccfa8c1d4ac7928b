import { describe, expect, it } from 'vitest';
import { describeCall } from '../../src/accel/call-sentences.ts';
import type { Call } from '../../src/iommufd/call.ts';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import { metricsOf } from '../../src/machine/metrics.ts';
import { toNdjson } from '../../src/trace/ndjson.ts';
import { toPrometheus } from '../../src/trace/prometheus.ts';
import { TraceRing } from '../../src/trace/trace-ring.ts';
import { BenchHost, BenchMachine } from '../support/bench-machine.ts';

function observed(): { machine: BenchMachine; ring: TraceRing } {
  const ring = new TraceRing();
  const machine = new BenchMachine(new BenchHost(), {}, false, ring);
  machine.plug();
  machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
  machine.attach();
  machine.dma(0x1000n);
  return { machine, ring };
}

describe('the trace of a machine', () => {
  it('has what the guest did and what was asked of the host, in the order in which it happened', () => {
    const { ring } = observed();
    const lines = toNdjson(ring.entries)
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const events = lines.map(({ event }) => event);
    const at = (event: string): number => events.indexOf(event);
    expect(lines[at('vsmmu_reconcile')]).toMatchObject({ cause: 'plug nic0' });
    expect(at('iommufd_backend_alloc_viommu')).toBeGreaterThan(at('iommufd_backend_alloc_hwpt'));
    expect(at('smmuv3_read_mmio')).toBeGreaterThan(at('iommufd_backend_alloc_viommu'));
    expect(at('iommufd_viommu_alloc_eventq')).toBeGreaterThan(at('smmuv3_write_mmio'));
    expect(lines.find(({ event }) => event === 'iommufd_viommu_alloc_eventq')).toMatchObject({
      veventq_depth: 16,
    });
    expect(lines.find(({ event }) => event === 'smmuv3_record_event')).toMatchObject({
      type: '0x10',
      sid: '0x8',
    });
  });
  it('has no reconcile that did nothing', () => {
    const { machine, ring } = observed();
    const before = ring.entries.length;
    machine.machine.accelerator.streamsChanged(0, 0xffff);
    expect(ring.entries).toHaveLength(before);
  });
});

describe('the counters of a machine', () => {
  it('say whose events were lost, and why, as far as anyone can tell', () => {
    const machine = new BenchMachine(new BenchHost());
    for (const index of [0, 1]) machine.plug(index);
    machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
    for (const index of [0, 1]) machine.attach(index);
    machine.interruptsOff = true;
    for (let i = 0; i < 36; i++) machine.dma(BigInt(i) * 0x1000n, 0);
    machine.dma(0x1000n, 1);
    // More at once than the host has room for.
    for (let i = 0; i < 20; i++) machine.dmaOnly(BigInt(i) * 0x1000n, 0);
    machine.settle();
    machine.interruptsOff = false;
    const text = toPrometheus(metricsOf(machine.machine));
    for (const line of [
      'vsmmu_events_delivered_total 16',
      'vsmmu_events_delivered_by_device_total{device="nic0"} 16',
      'vsmmu_events_lost_total{cause="host_queue_full"} 4',
      'vsmmu_events_lost_total{cause="crowded_out"} 21',
      'vsmmu_events_lost_by_device_total{device="vIOMMU",cause="host_queue_full"} 4',
      'vsmmu_events_lost_by_device_total{device="nic0",cause="crowded_out"} 21',
      'vsmmu_events_waiting 16',
    ])
      expect(text.split('\n')).toContain(line);
  });
  it('say what became of events and invalidations', () => {
    const { machine } = observed();
    const text = toPrometheus(metricsOf(machine.machine));
    for (const line of [
      'vsmmu_events_delivered_total 1',
      'vsmmu_events_delivered_by_device_total{device="nic0"} 1',
      'vsmmu_events_lost_total{cause="host_queue_full"} 0',
      'vsmmu_devices{attached="translate"} 1',
      'vsmmu_failures 0',
      'vsmmu_veventq_depth 16',
    ])
      expect(text.split('\n')).toContain(line);
    expect(text).toMatch(/^vsmmu_invalidations_sent_total [1-9]/m);
  });
});

describe('a call in a sentence', () => {
  const call = (operation: string, given = {}, returned = {}, errno = 0): Call => ({
    operation,
    given,
    returned,
    errno,
  });
  it.each<[Call, string]>([
    [
      call('IOMMU_VDEVICE_ALLOC', { dev_id: 1, virt_id: 8n }, { out_vdevice_id: 7 }),
      'Tells the host that device 1 has StreamID 0x8 in the guest, as object 7.',
    ],
    [
      call('IOMMU_HWPT_ALLOC', { flags: 1, pt_id: 2 }, { out_hwpt_id: 3 }),
      'Makes the stage 2 table of address space 2, as object 3.',
    ],
    [
      call('IOMMU_IOAS_MAP', { iova: 0x4000_0000n, length: 0x10_0000n }),
      'Maps 1,024 KiB at guest-physical 0x40000000.',
    ],
    [
      call('IOMMU_VEVENTQ_ALLOC', { veventq_depth: 16 }, {}, ERRNO.ENOMEM),
      'The host refuses (ENOMEM) what makes the vEVENTQ, in which the host keeps up to 16 events for the guest.',
    ],
    [call('IOMMU_NEW_THING'), 'Calls IOMMU_NEW_THING.'],
  ])('%o', (made, sentence) => {
    expect(describeCall(made)).toBe(sentence);
  });
  it('every call that a machine makes has one of its own', () => {
    const { ring } = observed();
    const unknown = ring.entries.filter(
      ({ event }) => event.startsWith('vsmmu_') && !/reconcile|get_hw_info|open|close|failure/.test(event),
    );
    expect(unknown).toEqual([]);
  });
});
