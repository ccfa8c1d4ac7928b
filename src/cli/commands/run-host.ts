/** `vsmmu run --host linux`: this machine's own kernel and devices. */

import type { EndpointKind } from '../../host/linux/endpoints/endpoint.ts';
import { hostFiles } from '../../host/linux/host-files.ts';
import { LinuxKernel } from '../../host/linux/linux-kernel.ts';
import { LinuxHost, type Assignment } from '../../machine/linux-host.ts';
import type { Scenario } from '../../machine/scenario/parse.ts';
import type { MakeHost } from '../../machine/scenario/reference-run.ts';
import { loadSyscalls } from '../../sys/koffi-syscalls.ts';
import { UsageError } from '../exit.ts';

/**
 * @param devices what `--device` was given, as `name=/dev/vfio/devices/vfio0[,kind=edu]`.
 * @throws UsageError, or an error with code UNSUPPORTED_HERE.
 */
export async function realHost(scenario: Scenario, devices: readonly string[]): Promise<MakeHost> {
  const names = scenario.devices.map(({ name }) => name);
  const assignments = devices.map((text) => parseAssignment(text, names));
  const twice = assignments.find(
    ({ name }, i) => assignments.findIndex((other) => other.name === name) !== i,
  );
  if (twice !== undefined) throw new UsageError(`--device gives ${twice.name} twice.`);
  const kernel = new LinuxKernel({ sys: await loadSyscalls() });
  // Also at a signal, which ends this process as an exit does.
  process.once('exit', () => kernel.release());
  const host = LinuxHost.open({ kernel, files: hostFiles(), devices: names, assignments });
  return () => host;
}

function parseAssignment(text: string, names: readonly string[]): Assignment {
  const match = /^([^=,]+)=(\/[^,]+)(?:,kind=([^,]+))?$/.exec(text);
  if (match === null)
    throw new UsageError(
      `--device is NAME=FILE or NAME=FILE,kind=KIND, such as nic0=/dev/vfio/devices/vfio0; not "${text}".`,
    );
  const [, name, path, kind] = match;
  if (!names.includes(name))
    throw new UsageError(`The scenario has no device "${name}"; it has ${names.join(', ')}.`);
  if (kind === undefined) return { name, path };
  if (!isKind(kind)) throw new UsageError(`--device: a kind is iommu-testdev or edu, not "${kind}".`);
  return { name, path, kind };
}

const isKind = (text: string): text is EndpointKind => text === 'iommu-testdev' || text === 'edu';
