/** `vsmmu run`: plays a scenario and says what happens, for people or as JSON lines. */

import { readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Reporter } from '../../machine/report.ts';
import { parseScenario } from '../../machine/scenario/parse.ts';
import { runReferenceScenario } from '../../machine/scenario/reference-run.ts';
import { EXIT, UsageError } from '../exit.ts';
import { narrator } from '../narrator.ts';
import { realHost } from './run-host.ts';
import { ObservationFiles } from './run-observation.ts';
import { parseSmmuProperties } from './run-smmu.ts';

export interface RunOptions {
  readonly guest?: string;
  readonly host?: string;
  /** With the real host: which device stands for which, see {@link realHost}. */
  readonly device?: readonly string[];
  /** Files for what happened inside, and for counters. */
  readonly trace?: string;
  readonly metrics?: string;
  /** Properties of the guest's SMMU, as QEMU writes them; they go before the scenario's own. */
  readonly smmu?: string;
  readonly json?: boolean;
  readonly verbose?: boolean;
  readonly qemu?: string;
  readonly kernel?: string;
  readonly busybox?: string;
  readonly initrd?: string;
  readonly append?: string;
}

const DEFAULT_SCENARIO = { reference: 'three-orders.yaml', qemu: 'real-guest.yaml' } as const;

/**
 * @param file a scenario file; by default the one for the guest.
 * @returns the exit code.
 * @throws UsageError, ScenarioError, or an error with code UNSUPPORTED_HERE.
 */
export async function run(file: string | undefined, options: RunOptions): Promise<number> {
  const guest = options.guest;
  if (guest !== undefined && guest !== 'reference' && guest !== 'bare' && guest !== 'qemu')
    throw new UsageError(`--guest is reference, bare or qemu, not "${guest}".`);
  if (guest === 'bare' && file === undefined) throw new UsageError('--guest bare needs a scenario file.');
  const host = options.host ?? 'sim';
  if (host !== 'sim' && host !== 'linux') throw new UsageError(`--host is sim or linux, not "${host}".`);
  if (host === 'sim' && options.device !== undefined) throw new UsageError('--device needs --host linux.');

  const path =
    file ??
    fileURLToPath(
      new URL(
        `../../../scenarios/${DEFAULT_SCENARIO[guest === 'qemu' ? 'qemu' : 'reference']}`,
        import.meta.url,
      ),
    );
  const parsed = parseScenario(read(path), file ?? relative('.', path), guest);
  const scenario =
    options.smmu === undefined
      ? parsed
      : { ...parsed, smmu: { ...parsed.smmu, ...parseSmmuProperties(options.smmu) } };
  const files = new ObservationFiles(options);
  if (host === 'linux' && scenario.guest !== 'reference')
    throw new UsageError('--host linux needs --guest reference.');
  const report = reporter(options);
  if (scenario.guest !== 'qemu') {
    for (const option of ['qemu', 'kernel', 'busybox', 'initrd', 'append'] as const)
      if (options[option] !== undefined) throw new UsageError(`--${option} needs --guest qemu.`);
    if (scenario.guest === 'bare') {
      for (const option of ['trace', 'metrics', 'smmu'] as const)
        if (options[option] !== undefined)
          throw new UsageError(`--${option} needs --guest reference or qemu.`);
      const { runBareScenario } = await import('../../explore/replay.ts');
      return runBareScenario(scenario, report).failed === 0 ? EXIT.Fine : EXIT.Failed;
    }
    const makeHost = host === 'linux' ? await realHost(scenario, options.device ?? []) : undefined;
    const { failed } = await runReferenceScenario(scenario, report, makeHost, files.observation);
    files.write();
    return failed === 0 ? EXIT.Fine : EXIT.Failed;
  }
  const { runQemuScenario } = await import('../../machine/scenario/qemu-run.ts');
  const { failed, entries } = await runQemuScenario(scenario, options, report, {
    trace: options.trace !== undefined,
    ended: (metrics, scenarioCase) => files.add(String(scenarioCase), metrics),
  });
  files.write(entries);
  return failed === 0 ? EXIT.Fine : EXIT.Failed;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`The scenario cannot be read: ${(error as Error).message}`);
  }
}

function reporter({ json = false, verbose = false }: RunOptions): Reporter {
  const write = (line: string): void => void process.stdout.write(`${line}\n`);
  if (json) return (event) => write(JSON.stringify(event));
  const colour = process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '';
  return narrator({ write, verbose, colour });
}
