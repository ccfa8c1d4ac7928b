/** What a machine shows of its inside, held to the formats by readers of the tests' own. */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { describeCall } from '../../src/accel/call-sentences.ts';
import { run } from '../../src/cli/commands/run.ts';
import { IOMMUFD_IOCTLS } from '../../src/iommufd/uapi/iommufd.ts';
import type { ReconcileReport } from '../../src/accel/report.ts';
import { metricsOf } from '../../src/machine/metrics.ts';
import { Machine } from '../../src/machine/machine.ts';
import { Memory } from '../../src/memory/memory.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { TRACE_EVENTS, CALL_EVENTS } from '../../src/trace/event-names.ts';
import { toPrometheus } from '../../src/trace/prometheus.ts';
import { BenchHost, GUEST_IDS, RAM } from '../support/bench-machine.ts';
import { decodeMessage, type Field } from '../support/protobuf.ts';

/** One sample of the text format. */
interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/**
 * Reads Prometheus' text format 0.0.4 as strictly as promtool: HELP and TYPE once and before the samples, families
 * together, no series twice, names and escapes as they have to be.
 */
function readPrometheus(text: string): Map<string, { help: string; type: string; samples: Sample[] }> {
  const families = new Map<string, { help: string; type: string; samples: Sample[] }>();
  expect(text.endsWith('\n')).toBe(true);
  let current = '';
  const series = new Set<string>();
  for (const line of text.slice(0, -1).split('\n')) {
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\]|\\[\\n])+)$/.exec(line);
    if (help !== null) {
      expect(families.has(help[1]), `${help[1]} twice`).toBe(false);
      families.set(help[1], { help: help[2], type: '', samples: [] });
      current = help[1];
      continue;
    }
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge)$/.exec(line);
    if (type !== null) {
      expect(type[1]).toBe(current);
      const family = families.get(current)!;
      expect(family.type).toBe('');
      families.set(current, { ...family, type: type[2] });
      continue;
    }
    const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (-?[0-9]+(?:\.[0-9]+)?)$/.exec(line);
    expect(sample, line).not.toBeNull();
    const [, name, labelText = '', value] = sample!;
    expect(name).toBe(current);
    const labels: Record<string, string> = {};
    let rest = labelText;
    while (rest !== '') {
      const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\[\\"n])*)"(?:,|$)/.exec(rest);
      expect(label, rest).not.toBeNull();
      expect(labels).not.toHaveProperty(label![1]);
      labels[label![1]] = label![2].replaceAll(/\\(.)/g, (_, escaped: string) =>
        escaped === 'n' ? '\n' : escaped,
      );
      rest = rest.slice(label![0].length);
    }
    const id = `${name} ${JSON.stringify(
      Object.keys(labels)
        .toSorted((a, b) => a.localeCompare(b))
        .map((label) => [label, labels[label]]),
    )}`;
    expect(series.has(id), id).toBe(false);
    series.add(id);
    families.get(name)!.samples.push({ name, labels, value: Number(value) });
  }
  for (const [name, { type }] of families) {
    expect(type, name).not.toBe('');
    expect(type === 'counter', name).toBe(name.endsWith('_total'));
  }
  return families;
}

/** A machine whose devices have these names, with every report of its reconciles. */
function observed(names: readonly string[]): {
  machine: Machine;
  host: BenchHost;
  reports: ReconcileReport[];
} {
  const host = new BenchHost();
  const reports: ReconcileReport[] = [];
  const machine = new Machine({
    kernel: host.sim,
    memory: new Memory(),
    ids: GUEST_IDS,
    interrupts: { raise() {}, writeMsi: () => true },
    scheduler: host.scheduler,
    observer: (report) => reports.push(report),
  });
  machine.addRam(RAM, host.ram);
  names.forEach((name, i) => machine.plug(name, `/dev/vfio/devices/vfio${i}`, 8 + i));
  return { machine, host, reports };
}

describe('the counters of a machine', () => {
  it('are valid text, also for devices whose owner gave them awkward names', () => {
    const { machine, host } = observed(['a"b', 'c\\d\ne']);
    machine.smmu.write(OFFSET.EVENTQ_BASE, 8, 0, RAM + 4);
    // A linear stream table of zeros: every DMA is C_BAD_STE.
    machine.smmu.write(OFFSET.STRTAB_BASE, 8, 0, RAM + 0x1_0000);
    machine.smmu.write(0x88, 4, 0, 5);
    machine.smmu.write(OFFSET.CR0, 4, 0, 5);
    host.testers[0].dmaWrite32(1n, 1);
    host.testers[1].dmaWrite32(2n, 1);
    host.testers[1].dmaWrite32(3n, 1);
    host.scheduler.run();
    const families = readPrometheus(toPrometheus(metricsOf(machine)));
    const values = (name: string, label: string): Record<string, number> =>
      Object.fromEntries(families.get(name)!.samples.map(({ labels, value }) => [labels[label], value]));
    expect(values('vsmmu_events_delivered_by_device_total', 'device')).toEqual({ 'a"b': 1, 'c\\d\ne': 2 });
    expect(new Set(Object.values(values('vsmmu_events_lost_total', 'cause')))).toEqual(new Set([0]));
    machine.unplug('a"b');
    machine.unplug('c\\d\ne');
  });
  it('show each cause of a loss as its own number', () => {
    const { machine, host } = observed(['nic0']);
    machine.smmu.write(OFFSET.EVENTQ_BASE, 8, 0, RAM + 1);
    machine.smmu.write(OFFSET.STRTAB_BASE, 8, 0, RAM + 0x1_0000);
    machine.smmu.write(0x88, 4, 0, 5);
    machine.smmu.write(OFFSET.CR0, 4, 0, 5);
    // Two for the guest, two for the host's queue, three for nobody.
    for (let i = 0; i < 2; i++) host.testers[0].dmaWrite32(BigInt(i), 1);
    host.scheduler.run();
    for (let i = 0; i < 5; i++) host.testers[0].dmaWrite32(BigInt(i), 1);
    host.scheduler.run();
    machine.smmu.write(OFFSET.CR0, 4, 0, 1);
    const lost = readPrometheus(toPrometheus(metricsOf(machine))).get('vsmmu_events_lost_total')!.samples;
    expect(Object.fromEntries(lost.map(({ labels, value }) => [labels['cause'], value]))).toMatchObject({
      host_queue_full: 3,
      queue_closed: 2,
      guest_refused: 0,
    });
    machine.unplug('nic0');
  });
});

describe('each reconcile step', () => {
  it('has a sentence of its own, whether the host takes it or refuses it', () => {
    const { machine, host, reports } = observed(['nic0', 'nic1']);
    machine.smmu.write(OFFSET.EVENTQ_BASE, 8, 0, RAM + 4);
    machine.smmu.write(OFFSET.CR0, 4, 0, 4);
    machine.smmu.write(OFFSET.CR0, 4, 0, 5);
    machine.addRam(0x1_0000_0000, new Uint8Array(0x1000));
    machine.unmapRam(0x1_0000_0000);
    machine.reset();
    host.sim.faults.add({ ioctl: 'IOMMU_VEVENTQ_ALLOC', errno: 'ENOMEM' });
    machine.smmu.write(OFFSET.CR0, 4, 0, 4);
    machine.accelerator.setSid('nic1', undefined);
    machine.unplug('nic0');
    machine.unplug('nic1');
    const calls = reports.flatMap(({ operations }) => operations);
    expect(new Set(calls.map(({ operation }) => operation)).size).toBeGreaterThan(12);
    for (const call of calls) {
      const sentence = describeCall(call);
      expect(sentence).toMatch(/^[A-Z][^\n]*\.$/);
      expect(sentence, call.operation).not.toMatch(/^Calls |what calls |undefined|NaN/);
    }
    expect(calls.map(describeCall)).toContainEqual(expect.stringMatching(/^The host refuses \(ENOMEM\)/));
    for (const { queue, cause } of reports) {
      expect(queue.why).toMatch(/^[A-Z].*\.$/);
      expect(cause).not.toBe('');
    }
  });
});

describe('the files of a run', () => {
  let folder: string;
  let printed = '';
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'vsmmu-'));
    const write = vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
      printed += String(chunk);
      return true;
    });
    try {
      for (const trace of ['t.ndjson', 't.pftrace'])
        expect(
          await run(undefined, {
            trace: join(folder, trace),
            metrics: join(folder, 'm.prom'),
            verbose: true,
          }),
        ).toBe(0);
    } finally {
      write.mockRestore();
    }
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it('are JSON lines, in order, whose events are QEMU’s or ours, with values of the kinds that they say', () => {
    const text = readFileSync(join(folder, 't.ndjson'), 'utf8');
    expect(text.endsWith('\n')).toBe(true);
    const lines = text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.length).toBeGreaterThan(100);
    const known = new Set([...Object.keys(TRACE_EVENTS), ...Object.values(CALL_EVENTS)]);
    let last = 0;
    for (const { time, event, ...values } of lines) {
      expect(Number(time)).toBeGreaterThanOrEqual(last);
      last = Number(time);
      expect(known.has(String(event)) || String(event).startsWith('vsmmu_'), String(event)).toBe(true);
      for (const [name, value] of Object.entries(values)) {
        expect(name).not.toMatch(/^value\d/);
        if (typeof value === 'number') expect(Number.isSafeInteger(value), name).toBe(true);
        else expect(typeof value).toBe('string');
      }
    }
    // The peer's names for what both do.
    for (const name of [
      'smmuv3_write_mmio',
      'smmuv3_cmdq_opcode',
      'smmuv3_record_event',
      'iommufd_backend_alloc_viommu',
      'iommufd_viommu_alloc_eventq',
    ])
      expect(
        lines.some(({ event }) => event === name),
        name,
      ).toBe(true);
  });
  it('are a Perfetto trace: every event has a time, a name, and a track that was declared before it', () => {
    const bytes = new Uint8Array(readFileSync(join(folder, 't.pftrace')));
    const get = (message: readonly Field[], field: number): unknown =>
      message.find((f) => f.field === field)?.value;
    const inner = (value: unknown): Field[] => decodeMessage(value as Uint8Array);
    const text = (value: unknown): string =>
      new TextDecoder('utf-8', { fatal: true }).decode(value as Uint8Array);
    const tracks = new Map<unknown, string>();
    const processes = new Set<unknown>();
    const names = new Map<string, number>();
    let last = 0n;
    for (const { field, value } of decodeMessage(bytes)) {
      expect(field).toBe(1);
      const packet = inner(value);
      expect(get(packet, 10)).toBe(1n);
      const descriptor = get(packet, 60);
      if (descriptor !== undefined) {
        const track = inner(descriptor);
        const uuid = get(track, 1);
        expect(tracks.has(uuid) || processes.has(uuid)).toBe(false);
        if (get(track, 3) === undefined) {
          expect(processes.has(get(track, 5))).toBe(true);
          tracks.set(uuid, text(get(track, 2)));
        } else processes.add(uuid);
        continue;
      }
      const time = get(packet, 8) as bigint;
      expect(time).toBeGreaterThanOrEqual(last);
      last = time;
      const event = inner(get(packet, 11));
      expect(tracks.has(get(event, 11))).toBe(true);
      expect(tracks.get(get(event, 11))).toBe(text(get(event, 22)));
      const name = text(get(event, 23));
      names.set(name, (names.get(name) ?? 0) + 1);
      for (const { field: annotated, value: annotation } of event) {
        if (annotated !== 4) continue;
        const values = inner(annotation);
        expect(text(get(values, 10))).not.toBe('');
        expect([3, 6, 7].filter((kind) => get(values, kind) !== undefined)).toHaveLength(1);
      }
    }
    const lines = readFileSync(join(folder, 't.ndjson'), 'utf8').trimEnd().split('\n');
    // Two runs of one scenario do the same.
    expect([...names.values()].reduce((sum, n) => sum + n, 0)).toBe(lines.length);
    expect(names.get('smmuv3_record_event')).toBe(
      lines.filter((line) => line.includes('"smmuv3_record_event"')).length,
    );
  });
  it('are Prometheus text, with the case as a label', () => {
    const families = readPrometheus(readFileSync(join(folder, 'm.prom'), 'utf8'));
    expect(families.size).toBeGreaterThan(7);
    for (const { samples } of families.values())
      for (const { labels } of samples) expect(labels['case']).toMatch(/^\d+$/);
  });
  it('and -v has said each call to the host in a sentence, with the call below it', () => {
    const lines = printed.split('\n').map((line) => line.trim());
    const calls = lines.filter((line) => /^(?:IOMMU|VFIO)_[A-Z0-9_]+ .* = /.test(line));
    expect(calls.length).toBeGreaterThan(30);
    for (const call of calls) {
      const said = lines[lines.indexOf(call) - 1];
      expect(said, call).toMatch(/[A-Z][^.]*.*\.$/);
      expect(said).not.toMatch(/^Calls /);
    }
    const allocating = IOMMUFD_IOCTLS.filter(({ ioctl }) => /VIOMMU_ALLOC|VDEVICE|VEVENTQ/.test(ioctl));
    for (const { ioctl } of allocating) expect(calls.some((call) => call.startsWith(ioctl))).toBe(true);
  });
});
