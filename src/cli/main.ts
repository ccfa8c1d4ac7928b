#!/usr/bin/env node
/** The command line. Each command loads its room only when it is asked for, so that the first line comes at once. */

import { Command, CommanderError } from 'commander';
import { EXIT, UsageError } from './exit.ts';
import { version } from './version.ts';

const program = new Command('vsmmu')
  .description('An accelerated virtual Arm SMMUv3 that runs beside a VMM.')
  .version(version, '-V, --version')
  .showHelpAfterError('Try "vsmmu --help".')
  .exitOverride()
  .configureHelp({ helpWidth: 80 })
  .addHelpText(
    'after',
    `
Exit codes: 0 fine, 1 failed, 2 usage, 3 not possible on this machine.

Examples:
  vsmmu run                                 the three cases, all embedded
  vsmmu run scenarios/kdump.yaml -v         one scenario, every call shown
  vsmmu run --guest qemu                    an unmodified Linux in QEMU
  dmesg | vsmmu explain                     what happened, in sentences`,
  );

program
  .command('run')
  .description('run a scenario (default: the three orders of the mission)')
  .argument('[scenario]', 'a scenario file, see docs/scenarios.md')
  .option('--guest <guest>', 'reference, bare or qemu')
  .option('--host <host>', 'sim, or linux: this machine', 'sim')
  .option(
    '--device <name=file>',
    'real host: a VFIO device for a name, NAME=/dev/vfio/devices/vfioN[,kind=KIND]',
    (device: string, all: readonly string[] | undefined) => [...(all ?? []), device],
  )
  .option('--json', 'one JSON object per line')
  .option('-v, --verbose', 'every call to the host, every line of the guest')
  .option('--smmu <properties>', 'ril, ats, stall, pri=on|off|auto, oas, ssidsize=N|auto')
  .option('--trace <file>', 'what happened inside: .ndjson, or .pftrace for Perfetto')
  .option('--metrics <file>', 'counters, as Prometheus reads them')
  .option('--qemu <path>', 'real guest: the QEMU to use (>= 10.1)')
  .option('--kernel <path>', 'real guest: an arm64 kernel image')
  .option('--busybox <path>', 'real guest: a static arm64 busybox')
  .option('--initrd <path>', 'real guest: an initramfs instead of ours')
  .option('--append <text>', 'real guest: more kernel command line')
  .action(async (scenario: string | undefined, options: object) => {
    const { run } = await import('./commands/run.ts');
    process.exitCode = await run(scenario, options);
  });

program
  .command('probe')
  .description('whether this machine has devices for a real host, and why not')
  .option('--no-open', 'only look; otherwise unused VFIO devices are bound for a moment')
  .option('--json', 'as JSON')
  .action(async (options: object) => {
    const { probe } = await import('./commands/probe.ts');
    process.exitCode = await probe(options);
  });

program
  .command('explain')
  .description('event records, STEs, CDs, commands and whole dmesg text, in sentences')
  .argument(
    '[what...]',
    'files or "-"; or the 64-bit words in hexadecimal with --event, --ste, --cd, --command',
  )
  .option('--event', 'the words of an event record (4)')
  .option('--ste', 'the words of a Stream Table Entry (8)')
  .option('--cd', 'the words of a Context Descriptor (8)')
  .option('--command', 'the words of a command (2)')
  .option('--fields', 'every field with its bits')
  .option('--walk <file>', 'the way of one transaction through the tables in this machine image or vector')
  .option('--sid <n>', 'walk: StreamID')
  .option('--ssid <n>', 'walk: SubstreamID')
  .option('--iova <n>', 'walk: address')
  .option('--access <r|w|x>', 'walk: read, write or instruction fetch')
  .option('--privileged', 'walk: a privileged access')
  .option('--id <id>', 'walk: which vector of the file')
  .option('--step <n>', 'walk: in front of which of its steps (default: its last DMA)')
  .option('--json', 'one JSON object per line')
  .action(async (what: string[], options: { readonly walk?: string; readonly json?: boolean }) => {
    if (options.walk !== undefined) {
      const { explainWalkOf } = await import('./commands/explain-walk.ts');
      process.exitCode = explainWalkOf({ ...options, walk: options.walk });
      return;
    }
    const { explain } = await import('./commands/explain.ts');
    process.exitCode = explain(what, options);
  });

program
  .command('conformance')
  .description('replay test vectors against the model')
  .argument('<file...>', 'JSON lines, plain or gzip')
  .option('--json', 'one JSON object per line')
  .action(async (files: string[], options: object) => {
    const { conformance } = await import('./commands/conformance.ts');
    process.exitCode = conformance(files, options);
  });

const explore = program
  .command('explore')
  .description('every order in which things can happen to a small machine, checked')
  .argument(
    '[configuration]',
    'queue, streams, pair, storm, caches, commands, buses, race, driver or failures (default: all)',
  )
  .option('--depth <events>', 'how many events a schedule has at most')
  .option('--seconds <seconds>', 'how long it may take (default: 60, without --depth)')
  .option('--shard <i/n>', 'one part of n, for many machines')
  .option('--shard-depth <events>', 'where the states are shared out (default: 3)')
  .option('--output <file>', 'write the result as JSON, for merge')
  .option('--scenario <file>', 'where to write what was found (default: broken-CONFIGURATION.yaml)')
  .option('--json', 'the result as one JSON object')
  .action(async (configuration: string | undefined, options: object) => {
    const command = await import('./commands/explore.ts');
    process.exitCode = command.explore(configuration, options);
  });
explore
  .command('merge')
  .description('put the results of all shards together')
  .argument('<file...>', 'what --output wrote')
  .option('--output <file>', 'write the sum as JSON')
  .option('--scenario <file>', 'where to write what was found')
  .option('--json', 'the result as one JSON object')
  .action(async (files: string[], _: object, command: Command) => {
    const { exploreMerge } = await import('./commands/explore.ts');
    process.exitCode = exploreMerge(files, command.optsWithGlobals());
  });

const lab = program.command('lab').description('what a real guest needs: QEMU, an arm64 Linux, busybox');
lab
  .command('setup')
  .description('fetch it from Debian packages into the cache folder')
  .action(async () => {
    const { labSetup } = await import('./commands/lab.ts');
    process.exitCode = await labSetup();
  });
lab
  .command('build')
  .description('build an arm64 Linux that is a host with real SMMUv3s (in QEMU), for --host linux in a test')
  .action(async () => {
    const { labBuild } = await import('./commands/lab.ts');
    process.exitCode = await labBuild();
  });
lab
  .command('check')
  .description('say what is there and what is missing')
  .option('--json', 'as JSON')
  .action(async (options: object) => {
    const { labCheck } = await import('./commands/lab.ts');
    process.exitCode = await labCheck(options);
  });

interface Coded {
  readonly code: string;
}
const isCoded = (error: unknown): error is Error & Coded =>
  error instanceof Error && typeof (error as Partial<Coded>).code === 'string';

// Whoever reads has seen enough, as `head` does.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

// So that what is registered for the exit is done: run folders removed, children ended.
for (const [signal, number] of [
  ['SIGINT', 2],
  ['SIGTERM', 15],
] as const)
  process.once(signal, () => process.exit(128 + number));

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? EXIT.Fine : EXIT.Usage;
  else if (isCoded(error)) {
    process.stderr.write(`vsmmu: ${error.message}\n`);
    process.exitCode = exitCodeOf(error);
  } else throw error;
}

function exitCodeOf(error: Coded): number {
  if (error instanceof UsageError || error.code === 'SCENARIO_INVALID') return EXIT.Usage;
  if (error.code === 'UNSUPPORTED_HERE') return EXIT.NotPossibleHere;
  return EXIT.Failed;
}
