/** Plays a scenario with an unmodified Linux in QEMU on the embedded host. Each case boots a machine of its own. */

import { setTimeout as sleep } from 'node:timers/promises';
import { RealGuest, type RealGuestOptions } from '../qemu/real-guest.ts';
import type { Metric } from '../../trace/prometheus.ts';
import type { TraceEntry } from '../../trace/trace-ring.ts';
import type { Reporter } from '../report.ts';
import { QemuError } from '../../qemu/errors.ts';
import { RemoteError } from '../../qemu/command-channel.ts';
import { DEFAULT_MACHINE } from '../../qemu/command-line.ts';
import { describeStep } from './describe.ts';
import { compare, type ObservedEvent, type Verdict } from './expectations.ts';
import type { Scenario, ScenarioCase, ScenarioDevice } from './parse.ts';
import type { RunResult } from './reference-run.ts';
import type { Expectation, Step } from './steps.ts';

export type QemuRunOptions = Pick<RealGuestOptions, 'qemu' | 'kernel' | 'busybox' | 'initrd' | 'append'>;

/** How long an expectation may take to come true: the guest prints, and finds devices, in its own time. */
const PATIENCE_MS = 10_000;
/** How long to wait for what must not come. */
const QUIET_MS = 500;
const POLL_MS = 100;

export interface QemuObservation {
  /** Take down what happens inside. */
  readonly trace?: boolean;
  /** Told the counters of each case when it has ended. */
  readonly ended?: (metrics: readonly Metric[], scenarioCase: number) => void;
}

/**
 * Plays all cases. Reports as it goes.
 * @throws an error with code UNSUPPORTED_HERE where a real guest cannot be had.
 */
export async function runQemuScenario(
  scenario: Scenario,
  options: QemuRunOptions,
  report: Reporter,
  observation: QemuObservation = {},
): Promise<RunResult & { readonly entries: readonly TraceEntry[] }> {
  report({
    kind: 'scenario',
    title: scenario.title,
    about: scenario.about ?? null,
    guest: 'Linux in QEMU',
    host: 'embedded Linux 7.3 iommufd over a simulated SMMUv3',
  });
  const entries: TraceEntry[] = [];
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
    report({ kind: 'case', number: i + 1, title: scenarioCase.title });
    const guest = await RealGuest.create({
      ...options,
      host: { devices: scenario.devices, smmu: scenario.host.smmu },
      properties: scenario.smmu,
      trace: observation.trace,
      onEvent: count,
      onConsole: (text) => report({ kind: 'guest', text }),
    });
    try {
      await new QemuCase(scenario.devices, guest, count).play(scenarioCase);
      const seen = await guest.observe();
      report({ kind: 'events', ...seen.events });
      for (const entry of seen.entries) entries.push(entry);
      observation.ended?.(seen.metrics, i + 1);
    } finally {
      await guest.close();
    }
  }
  const result = { cases: scenario.cases.length, expectations, failed };
  report({ kind: 'end', ...result });
  return { ...result, entries };
}

class QemuCase {
  readonly #devices: readonly ScenarioDevice[];
  readonly #guest: RealGuest;
  readonly #report: Reporter;
  /** Events in the guest's log that an expectation has taken. */
  #taken = 0;
  #ioctls = 0;

  constructor(devices: readonly ScenarioDevice[], guest: RealGuest, report: Reporter) {
    this.#devices = devices;
    this.#guest = guest;
    this.#report = report;
  }

  /** Plays the steps until one fails for good: what comes after a failed boot says nothing. */
  async play({ steps }: ScenarioCase): Promise<void> {
    for (const step of steps) {
      if (step.action !== 'expect')
        this.#report({ kind: 'step', line: step.line, action: step.action, text: describeStep(step) });
      try {
        await this.#do(step);
      } catch (error) {
        if (!(error instanceof QemuError || error instanceof RemoteError || error instanceof RangeError))
          throw error;
        this.#report({ kind: 'expectation', line: step.line, ok: false, text: error.message });
        return;
      }
    }
  }

  async #do(step: Step): Promise<void> {
    const guest = this.#guest;
    switch (step.action) {
      case 'boot':
      case 'reboot': {
        const { seconds, release } = await (step.action === 'boot' ? guest.boot() : guest.reboot());
        this.#taken = step.action === 'boot' ? this.#taken : 0;
        this.#note(`Linux ${release} is up, ${seconds.toFixed(2)} s after its start.`);
        break;
      }
      case 'plug':
        await guest.plug(step.args.device, this.#port(step.args.device));
        break;
      case 'unplug':
        await guest.unplug(step.args.device);
        break;
      case 'dma':
        await this.#dma(step);
        break;
      case 'run': {
        const { status, output } = await guest.run(step.args.command);
        this.#note(output.trimEnd() === '' ? `Status ${status}.` : `Status ${status}: ${output.trimEnd()}`);
        this.#verdict(step.line, status === step.args.status, `status ${step.args.status} was expected`);
        if (step.args.output !== undefined)
          this.#verdict(step.line, output.includes(step.args.output), `the output has "${step.args.output}"`);
        break;
      }
      case 'storage':
        await this.#storage(step);
        break;
      case 'expect':
        await this.#expect(step.args, step.line);
        break;
      default:
        throw new RangeError(`${step.action} needs --guest reference`);
    }
  }

  #note(text: string): void {
    this.#report({ kind: 'note', text });
  }

  #verdict(line: number, ok: boolean, text: string): void {
    this.#report({ kind: 'expectation', line, ok, text });
  }

  #device(name: string): ScenarioDevice {
    return this.#devices.find((device) => device.name === name)!;
  }

  /** Bus 1 is behind root port 0. */
  #port(name: string): number {
    const { at } = this.#device(name);
    const port = parseInt(at.slice(0, 2), 16) - 1;
    if (port < 0 || port >= DEFAULT_MACHINE.rootPorts || !at.endsWith(':00.0'))
      throw new RangeError(
        `${name} cannot be at ${at}: a real guest has root ports for 01:00.0 to 0${DEFAULT_MACHINE.rootPorts}:00.0`,
      );
    return port;
  }

  async #dma({ args, line }: Extract<Step, { action: 'dma' }>): Promise<void> {
    const { device, bytes } = args;
    const write = args.write !== undefined;
    const iova = args.write ?? args.read ?? 0n;
    const ok = await this.#guest.dma(device, write, iova, bytes);
    this.#report({
      kind: 'dma',
      device,
      access: write ? 'write' : 'read',
      iova: `0x${iova.toString(16)}`,
      bytes,
      outcome: ok ? 'ok' : 'abort',
      text: `${device} ${write ? 'writes' : 'reads'} ${bytes} bytes at 0x${iova.toString(16)}: ${ok ? 'done' : 'aborted'}.`,
    });
    if (args.expect !== undefined)
      this.#verdict(line, ok === (args.expect === 'ok'), `the DMA was expected to end with ${args.expect}`);
  }

  async #storage({ args, line }: Extract<Step, { action: 'storage' }>): Promise<void> {
    const { device, mib } = args;
    const address = RealGuest.linuxName(this.#port(device));
    const script = storageScript(address, mib);
    const { status, output } = await this.#guest.run(script, 180_000);
    this.#note(output.trimEnd().split('\n').at(-1) ?? '');
    this.#verdict(
      line,
      status === 0,
      `${mib} MiB written to ${device} and read back compare equal${status === 0 ? '' : `: ${output}`}`,
    );
  }

  async #expect(expected: Expectation, line: number): Promise<void> {
    const deadline = Date.now() + PATIENCE_MS;
    // What must not happen needs a moment in which it could.
    if (expected.events?.length === 0) await sleep(QUIET_MS);
    let verdicts = await this.#compare(expected);
    while (verdicts.some(({ ok }) => !ok) && Date.now() < deadline) {
      await sleep(POLL_MS);
      verdicts = await this.#compare(expected);
    }
    if (expected.events !== undefined) this.#taken += expected.events.length;
    for (const { ok, text } of verdicts) this.#verdict(line, ok, text);
  }

  async #compare(expected: Expectation): Promise<Verdict[]> {
    const snapshot = await this.#guest.snapshot();
    const dmesg = this.#guest.running ? await this.#guest.dmesg() : [];
    const events = this.#eventsIn(dmesg);
    const verdicts = compare(expected, {
      eventqen: snapshot.eventqen,
      viommu: snapshot.viommu !== undefined,
      veventq: snapshot.veventq?.depth,
      attached: snapshot.attached,
      objects: snapshot.objects,
      ioctls: snapshot.ioctls - this.#ioctls,
      smmu: snapshot.smmu,
      overflow: dmesg.some((text) => text.includes('EVTQ overflow detected')),
      warnings: snapshot.problems,
      events: events.slice(this.#taken),
      dmesg,
    });
    if (expected.ioctls !== undefined) this.#ioctls = snapshot.ioctls;
    return verdicts;
  }

  /** Events as the guest's kernel printed them, in the decoded form of Linux 6.13 and later. */
  #eventsIn(dmesg: readonly string[]): ObservedEvent[] {
    const events: ObservedEvent[] = [];
    for (const [i, line] of dmesg.entries()) {
      const event = /event: (\w+) client: (\S+) sid: 0x\w+ ssid: (0x\w+)(?: iova: (0x\w+))?/.exec(line);
      if (event === null) continue;
      const details = dmesg[i + 1] ?? '';
      const device = this.#devices.find(({ at }) => `0000:${at}` === event[2]);
      events.push({
        type: event[1],
        device: device?.name,
        iova: BigInt(event[4] ?? 0),
        access: / (data|inst) write /.test(details) ? 'write' : 'read',
        stage: / s2 /.test(details) ? 2 : 1,
        ssid: Number(event[3]),
        stall: details.includes(' stall '),
      });
    }
    return events;
  }
}

/** Writes random data past the cache, reads it back past the cache, and compares checksums. */
function storageScript(address: string, mib: number): string {
  return `
for i in $(seq 100); do
  node=$(ls /sys/bus/pci/devices/${address}/nvme 2>/dev/null)
  [ -b /dev/$node"n1" ] && break
  sleep 0.1
done
disk=/dev/$node"n1"
[ -b $disk ] || { echo "no disk behind ${address}"; exit 1; }
dd if=/dev/urandom of=/tmp/data bs=1M count=${mib} 2>/dev/null || exit 1
written=$(md5sum </tmp/data)
dd if=/tmp/data of=$disk bs=1M oflag=direct 2>/dev/null || { echo "cannot write $disk"; exit 1; }
rm /tmp/data
read=$(dd if=$disk bs=1M count=${mib} iflag=direct 2>/dev/null | md5sum)
echo "${mib} MiB written to and read from $disk: md5 $written and $read"
[ "$written" = "$read" ]
`;
}
