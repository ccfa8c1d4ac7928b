import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseSmmuProperties } from '../../src/cli/commands/run-smmu.ts';
import { UsageError } from '../../src/cli/exit.ts';
import { metricsOf } from '../../src/machine/metrics.ts';
import type { RunEvent } from '../../src/machine/report.ts';
import { parseScenario, ScenarioError } from '../../src/machine/scenario/parse.ts';
import { runReferenceScenario } from '../../src/machine/scenario/reference-run.ts';
import { labelled, toPrometheus, type Metric } from '../../src/trace/prometheus.ts';
import { TraceRing } from '../../src/trace/trace-ring.ts';

const scenario = (smmu: string): string =>
  `title: t\nsmmu: ${smmu}\ndevices: { nic0: {} }\ncases:\n  - { title: c, steps: [plug: nic0] }\n`;

describe('the smmu of a scenario', () => {
  it.each([
    ['{ ril: maybe }', 'smmu.ril: on, off or auto is expected'],
    ['{ accel: off }', 'smmu.accel: on is expected'],
    ['{ oas: 43 }', 'smmu: oas is one of'],
    ['{ oas: 64 }', 'smmu.oas: a number, or auto, is expected'],
    ['{ ssidsize: 21 }', 'smmu.ssidsize'],
    ['{ cmdqv: on }', 'smmu.cmdqv is not known here'],
  ])('%s is refused with its line', (smmu, message) => {
    expect(() => parseScenario(scenario(smmu), 'f.yaml')).toThrow(ScenarioError);
    expect(() => parseScenario(scenario(smmu), 'f.yaml')).toThrow(message);
    expect(() => parseScenario(scenario(smmu), 'f.yaml')).toThrow(/^f\.yaml:2:/);
  });
  it('takes on and off as words and as truth values', () => {
    const { smmu } = parseScenario(
      scenario('{ accel: true, ril: on, ats: false, oas: auto, ssidsize: 8 }'),
      'f',
    );
    expect(smmu).toEqual({ ril: 'on', ats: 'off', oas: 'auto', ssidsize: 8 });
  });
});

describe('--smmu', () => {
  it.each(['', 'ril', 'ril=', 'ril=perhaps', 'cmdqv=on', 'oas=1000', 'ril=on,,ats=on'])(
    'refuses "%s"',
    (text) => {
      expect(() => parseSmmuProperties(text)).toThrow(UsageError);
    },
  );
  it('is what QEMU takes', () => {
    expect(parseSmmuProperties('accel=on,ril=auto,ats=off,oas=48,ssidsize=auto')).toEqual({
      ril: 'auto',
      ats: 'off',
      oas: 48,
      ssidsize: 'auto',
    });
  });
});

describe('a run', () => {
  it.each(['properties.yaml', 'snapshot.yaml', 'stalls.yaml', 'page-requests.yaml'])(
    'of scenarios/%s meets all that it expects',
    async (name) => {
      const text = readFileSync(new URL(`../../scenarios/${name}`, import.meta.url), 'utf8');
      const events: RunEvent[] = [];
      const { failed, expectations } = await runReferenceScenario(
        parseScenario(text, name),
        (event) => void events.push(event),
      );
      expect(events.filter((event) => event.kind === 'expectation' && !event.ok)).toEqual([]);
      expect(failed).toBe(0);
      expect(expectations).toBeGreaterThan(8);
    },
  );
  it('a restore without a snapshot is a failed step, and no crash', async () => {
    const text = scenario('{}').replace('plug: nic0', 'restore');
    const { failed } = await runReferenceScenario(parseScenario(text, 'f'), () => {});
    expect(failed).toBe(1);
  });
  it('that is refused by its host says so in the step', async () => {
    const events: RunEvent[] = [];
    await runReferenceScenario(
      parseScenario(scenario('{ ats: on }'), 'f'),
      (event) => void events.push(event),
    );
    expect(events.find((event) => event.kind === 'expectation')).toMatchObject({
      ok: false,
      text: expect.stringContaining('ats=on was asked for') as unknown,
    });
  });
  it('is in one trace, case by case, with the counters of each', async () => {
    const text = readFileSync(new URL('../../scenarios/three-orders.yaml', import.meta.url), 'utf8');
    const trace = new TraceRing();
    const metrics = new Map<string, readonly Metric[]>();
    const ended = (machine: Parameters<typeof metricsOf>[0], n: number): void =>
      void metrics.set(String(n), metricsOf(machine));
    const parsed = parseScenario(text, 'three-orders.yaml');
    await runReferenceScenario(parsed, () => {}, undefined, { trace, ended });
    expect(trace.entries.filter(({ event }) => event === 'vsmmu_case')).toHaveLength(parsed.cases.length);
    expect(toPrometheus(labelled('case', metrics))).toContain('vsmmu_veventq_depth{case="3"}');
  });
});
