/** Plays a scenario with the embedded guest on either host. Each case has a fresh machine. */

import type { TraceRing } from '../../trace/trace-ring.ts';
import { EmbeddedHost } from '../embedded-host.ts';
import { eventAccount } from '../event-account.ts';
import type { Machine } from '../machine.ts';
import type { Reporter } from '../report.ts';
import type { ScenarioHost } from '../scenario-host.ts';
import { Scheduler } from '../scheduler.ts';
import { CaseRun } from './case-run.ts';
import type { Scenario } from './parse.ts';

export interface RunResult {
  readonly cases: number;
  readonly expectations: number;
  readonly failed: number;
}

/** What a host may want to know of a scenario. */
export interface HostRequest {
  readonly scenario: Scenario;
  readonly scheduler: Scheduler;
  /** Told every line of the host's log, if it can be heard. */
  readonly log: (line: string) => void;
}

export type MakeHost = (request: HostRequest) => ScenarioHost;

const embeddedHost: MakeHost = ({ scenario: { devices, host }, scheduler, log }) =>
  new EmbeddedHost({ devices, smmu: host.smmu, scheduler, log });

/** What a run shows of its inside, besides what it reports. */
export interface RunObservation {
  /** Takes down all cases, one after the other. */
  readonly trace?: TraceRing | undefined;
  /** Told of each machine when its case has ended, and is still there. */
  readonly ended?: ((machine: Machine, scenarioCase: number) => void) | undefined;
}

/**
 * Plays all cases. Reports as it goes; does not throw for what a scenario can cause.
 * @param makeHost makes a host for each case; the embedded one by default.
 */
export async function runReferenceScenario(
  scenario: Scenario,
  report: Reporter,
  makeHost: MakeHost = embeddedHost,
  observation: RunObservation = {},
): Promise<RunResult> {
  let expectations = 0;
  let failed = 0;
  const count: Reporter = (event) => {
    if (event.kind === 'expectation') {
      expectations += 1;
      if (!event.ok) failed += 1;
    }
    report(event);
  };
  for (const [i, scenarioCase] of scenario.cases.entries()) {
    const scheduler = new Scheduler();
    const log = (text: string): void => report({ kind: 'host', text });
    const fresh = (): ScenarioHost => makeHost({ scenario, scheduler, log });
    const host = fresh();
    if (i === 0)
      report({
        kind: 'scenario',
        title: scenario.title,
        about: scenario.about ?? null,
        guest: 'the embedded reference driver',
        host: host.description,
      });
    report({ kind: 'case', number: i + 1, title: scenarioCase.title });
    observation.trace?.note('vsmmu_case', { title: scenarioCase.title });
    const run = new CaseRun({ scenario, host, fresh, scheduler, report: count, trace: observation.trace });
    try {
      await run.play(scenarioCase);
      report({ kind: 'events', ...eventAccount(run.machine) });
      observation.ended?.(run.machine, i + 1);
    } finally {
      run.close();
    }
  }
  const result = { cases: scenario.cases.length, expectations, failed };
  report({ kind: 'end', ...result });
  return result;
}
