import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { callEvent, TRACE_EVENTS } from '../../src/trace/event-names.ts';
import { toNdjson } from '../../src/trace/ndjson.ts';
import { toPerfetto } from '../../src/trace/perfetto.ts';
import { toPrometheus } from '../../src/trace/prometheus.ts';
import { ProtobufWriter } from '../../src/trace/protobuf.ts';
import { TraceRing } from '../../src/trace/trace-ring.ts';
import { decodeMessage, type Field } from '../support/protobuf.ts';

const SMMU = new URL('../../src/smmu/', import.meta.url);

describe('the ring', () => {
  it('keeps the newest, in order, and counts what it had to drop', () => {
    const ring = new TraceRing(undefined, 4);
    for (let i = 0; i < 10; i++) ring.record('e', i);
    const [mark, ...kept] = ring.entries;
    expect(kept.map(({ values }) => values[0])).toEqual([6, 7, 8, 9]);
    expect(kept.map(({ time }) => time)).toEqual([6, 7, 8, 9]);
    expect(ring.dropped).toBe(6);
    expect(mark).toEqual({ time: 6, event: 'vsmmu_dropped', values: [6] });
    expect(toNdjson(ring.entries).split('\n')[0]).toBe('{"time":6,"event":"vsmmu_dropped","entries":6}');
  });
  it('has no such mark while it has all', () => {
    const ring = new TraceRing(undefined, 4);
    for (let i = 0; i < 4; i++) ring.record('e', i);
    expect(ring.entries.map(({ event }) => event)).toEqual(['e', 'e', 'e', 'e']);
  });
  it('has the time that it is told', () => {
    const times = [5, 900];
    const ring = new TraceRing(() => times.shift()!);
    ring.record('a');
    ring.note('b', { why: 'x' });
    expect(ring.entries).toEqual([
      { time: 5, event: 'a', values: [] },
      { time: 900, event: 'b', values: ['x'], names: ['why'] },
    ]);
  });
});

it('every event that the device traces has names for its values', () => {
  const traced = readdirSync(SMMU).flatMap((file) =>
    [...readFileSync(new URL(file, SMMU), 'utf8').matchAll(/trace\(\s*'(\w+)'/g)].map(([, event]) => event),
  );
  expect(traced.length).toBeGreaterThan(8);
  expect(traced.filter((event) => !(event in TRACE_EVENTS))).toEqual([]);
});

it('calls to the host have the names of QEMU 11.1, where it traces them', () => {
  expect(
    ['IOMMU_HWPT_ALLOC', 'IOMMU_VEVENTQ_ALLOC', 'VFIO_DEVICE_ATTACH_IOMMUFD_PT', 'IOMMU_GET_HW_INFO'].map(
      callEvent,
    ),
  ).toEqual([
    'iommufd_backend_alloc_hwpt',
    'iommufd_viommu_alloc_eventq',
    'iommufd_cdev_pasid_attach_ioas_hwpt',
    'vsmmu_iommu_get_hw_info',
  ]);
});

describe('JSON lines', () => {
  it('name the values; numbers are hexadecimal, counts decimal', () => {
    const ring = new TraceRing();
    ring.record('smmuv3_write_mmio', 0x20, 0xd, 0, 4);
    ring.note('iommufd_backend_alloc_hwpt', { dev_id: 1, result: 'OK "quoted"' });
    ring.record('unheard_of', 16);
    expect(toNdjson(ring.entries)).toBe(
      `${[
        '{"time":0,"event":"smmuv3_write_mmio","addr":"0x20","value":"0xd","value_hi":"0x0","size":4}',
        '{"time":1,"event":"iommufd_backend_alloc_hwpt","dev_id":"0x1","result":"OK \\"quoted\\""}',
        '{"time":2,"event":"unheard_of","value0":"0x10"}',
      ].join('\n')}\n`,
    );
  });
});

describe('protocol buffers', () => {
  it.each([
    [0, [0x08, 0x00]],
    [127, [0x08, 0x7f]],
    [150, [0x08, 0x96, 0x01]],
    [2 ** 32, [0x08, 0x80, 0x80, 0x80, 0x80, 0x10]],
    [2 ** 53 - 1, [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]],
    [2n ** 64n - 1n, [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]],
  ])('%s is what the encoding guide says', (value, bytes) => {
    const writer = new ProtobufWriter();
    writer.uint(1, value);
    expect([...writer.bytes]).toEqual(bytes);
  });
  it('text and messages have their length before them, whatever it is', () => {
    const writer = new ProtobufWriter();
    writer.text(2, 'testing');
    writer.message(3, (inner) => inner.uint(1, 150));
    expect([...writer.bytes]).toEqual([
      0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67, 0x1a, 0x03, 0x08, 0x96, 0x01,
    ]);
    const long = new ProtobufWriter();
    long.text(60, 'é'.repeat(500));
    expect(long.bytes.length).toBe(2 + 2 + 1000);
  });
});

describe('Perfetto', () => {
  const packets = (bytes: Uint8Array): Field[][] =>
    decodeMessage(bytes).map(({ field, value }) => {
      expect(field).toBe(1);
      return decodeMessage(value as Uint8Array);
    });
  const get = (message: readonly Field[], field: number): unknown =>
    message.find((f) => f.field === field)?.value;
  const text = (value: unknown): string => new TextDecoder().decode(value as Uint8Array);

  it('gets a process, a track for each part, and each entry at its time on its track', () => {
    const ring = new TraceRing(() => 1_000_000_007);
    ring.record('smmuv3_write_mmio', 0x20, 0xd, 0, 4);
    ring.note('iommufd_backend_alloc_hwpt', { out_hwpt_id: 5, why: 'S1' });
    const all = packets(toPerfetto(ring.entries, 'smmu0'));
    expect(all).toHaveLength(1 + 6 + 2);
    for (const packet of all) expect(get(packet, 10)).toBe(1n);
    const process = decodeMessage(get(all[0], 60) as Uint8Array);
    expect(text(get(decodeMessage(get(process, 3) as Uint8Array), 6))).toBe('smmu0');
    const tracks = new Map(
      all.slice(1, 7).map((packet) => {
        const descriptor = decodeMessage(get(packet, 60) as Uint8Array);
        expect(get(descriptor, 5)).toBe(get(process, 1));
        return [get(descriptor, 1), text(get(descriptor, 2))];
      }),
    );
    const events = all.slice(7).map((packet) => {
      expect(get(packet, 8)).toBe(1_000_000_007n);
      const event = decodeMessage(get(packet, 11) as Uint8Array);
      expect(get(event, 9)).toBe(3n);
      const annotations = event
        .filter(({ field }) => field === 4)
        .map(({ value }) => decodeMessage(value as Uint8Array))
        .map((a) => [text(get(a, 10)), get(a, 3) ?? get(a, 7) ?? text(get(a, 6))]);
      return [text(get(event, 23)), tracks.get(get(event, 11)), Object.fromEntries(annotations)];
    });
    expect(events).toEqual([
      ['smmuv3_write_mmio', 'registers', { addr: 0x20n, value: 0xdn, value_hi: 0n, size: 4n }],
      ['iommufd_backend_alloc_hwpt', 'host', { out_hwpt_id: 5n, why: 'S1' }],
    ]);
  });
});

describe('Prometheus', () => {
  it('gets help, type and samples; labels are escaped', () => {
    expect(
      toPrometheus([
        { name: 'vsmmu_a_total', help: 'Things.', type: 'counter', samples: [{ value: 3 }] },
        { name: 'vsmmu_b', help: 'None.', type: 'gauge', samples: [] },
        {
          name: 'vsmmu_c',
          help: 'Back\\slash.',
          type: 'gauge',
          samples: [{ labels: { device: 'a"b\\c\nd', cause: 'x' }, value: 0 }],
        },
      ]),
    ).toBe(
      [
        '# HELP vsmmu_a_total Things.',
        '# TYPE vsmmu_a_total counter',
        'vsmmu_a_total 3',
        '# HELP vsmmu_c Back\\\\slash.',
        '# TYPE vsmmu_c gauge',
        'vsmmu_c{device="a\\"b\\\\c\\nd",cause="x"} 0',
        '',
      ].join('\n'),
    );
  });
});
