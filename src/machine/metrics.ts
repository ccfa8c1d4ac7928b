/** Counters of what a machine does and did. */

import type { Metric, Sample } from '../trace/prometheus.ts';
import { eventAccount } from './event-account.ts';
import type { Machine } from './machine.ts';

/** The counters of a machine, as of now. */
export function metricsOf(machine: Machine): Metric[] {
  const { state } = machine;
  const { events, invalidations, devices, failures, faults } = state;
  const counter = (name: string, help: string, samples: readonly Sample[]): Metric => ({
    name: `vsmmu_${name}_total`,
    help,
    type: 'counter',
    samples,
  });
  const one = (value: number): Sample[] => [{ value }];
  const byCause = (causes: Readonly<Record<string, number>>): Sample[] =>
    Object.entries(causes).map(([cause, value]) => ({ labels: { cause }, value }));
  const account = eventAccount(machine);
  const ofDevices = Object.entries(account.devices);
  return [
    counter('events_delivered', 'Event records written to the guest.', one(account.delivered)),
    counter(
      'events_delivered_by_device',
      'The same by device.',
      ofDevices.map(([device, { delivered }]) => ({ labels: { device }, value: delivered })),
    ),
    counter(
      'events_lost',
      'Events that the guest did not get, by cause.',
      byCause({ ...account.lost, malformed_bytes: events.malformed }),
    ),
    counter(
      'events_lost_by_device',
      "The same by device; those of which nobody knows whose they were are the vIOMMU's.",
      [
        { labels: { device: 'vIOMMU', cause: 'host_queue_full' }, value: account.lost.host_queue_full },
        ...ofDevices.flatMap(([device, { lost }]) =>
          byCause({ ...lost }).map(({ labels, value }) => ({ labels: { device, ...labels }, value })),
        ),
      ],
    ),
    counter('event_read_errors', 'Reads of the vEVENTQ that failed.', one(events.readErrors)),
    ...faultMetrics(faults),
    counter('invalidations_sent', 'Invalidation commands that went to the host.', one(invalidations.sent)),
    counter(
      'invalidations_skipped',
      'Invalidation commands that name nothing on the host.',
      one(invalidations.skipped),
    ),
    counter(
      'invalidation_failures',
      'Batches that the host did not carry out, by what was done instead.',
      byCause({
        failed: invalidations.failed,
        resynced: invalidations.resynced,
        streams_aborted: invalidations.abandoned,
        atc_timeout: invalidations.atcTimeouts,
      }),
    ),
    {
      name: 'vsmmu_devices',
      help: 'Plugged devices, by what they are attached to.',
      type: 'gauge',
      samples: attached(devices),
    },
    {
      name: 'vsmmu_failures',
      help: 'Things that the host refuses now.',
      type: 'gauge',
      samples: one(failures.size),
    },
    {
      name: 'vsmmu_veventq_depth',
      help: 'Records that the vEVENTQ holds; 0 if there is none.',
      type: 'gauge',
      samples: one(state.veventq?.depth ?? 0),
    },
    {
      name: 'vsmmu_events_waiting',
      help: "Events of devices that share the vEVENTQ, read, for which the guest's queue has no room.",
      type: 'gauge',
      samples: one(account.waiting),
    },
  ];
}

/** Faults that wait for an answer, where there is any way for them. */
function faultMetrics(faults: Machine['state']['faults']): Metric[] {
  const used = faults.filter(({ id, counters }) => id !== undefined || counters.read > 0);
  if (used.length === 0) return [];
  const samples = (of: (state: (typeof used)[number]) => number): Sample[] =>
    used.map((state) => ({ labels: { kind: state.kind }, value: of(state) }));
  const endings = ['retried', 'aborted', 'released', 'ended', 'forgotten'] as const;
  return [
    {
      name: 'vsmmu_faults_outstanding',
      help: 'Groups of faults that wait for an answer of the guest.',
      type: 'gauge',
      samples: samples(({ outstanding }) => outstanding),
    },
    {
      name: 'vsmmu_fault_groups_read_total',
      help: 'Groups of faults that the host handed over.',
      type: 'counter',
      samples: samples(({ counters }) => counters.read),
    },
    {
      name: 'vsmmu_fault_groups_ended_total',
      help: 'The same when they ended, by how.',
      type: 'counter',
      samples: used.flatMap(({ kind, counters }) =>
        endings.map((ending) => ({ labels: { kind, ending }, value: counters[ending] })),
      ),
    },
    {
      name: 'vsmmu_fault_answers_refused_total',
      help: 'Answers that the host did not take.',
      type: 'counter',
      samples: samples(({ counters }) => counters.refused),
    },
    {
      name: 'vsmmu_fault_answers_unknown_total',
      help: 'Answers of the guest to nothing that waits.',
      type: 'counter',
      samples: samples(({ counters }) => counters.unknown),
    },
  ];
}

function attached(devices: Machine['state']['devices']): Sample[] {
  const counts = new Map<string, number>();
  for (const device of devices) counts.set(device.attached, (counts.get(device.attached) ?? 0) + 1);
  return [...counts].map(([to, value]) => ({ labels: { attached: to }, value }));
}
