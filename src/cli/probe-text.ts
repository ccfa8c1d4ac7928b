/** What `vsmmu probe` found, for people: lines of at most 96 columns, but for commands to copy. */

import type { DeviceReport, ProbeReport, SmmuReport, VsmmuProperties } from '../machine/probe/probe.ts';
import type { Reason } from '../machine/probe/reason.ts';
import { describeIds } from '../smmu/identification.ts';
import { OAS_BITS } from '../spec/registers.ts';

const WIDTH = 96;

export function probeText(report: ProbeReport): string[] {
  const lines = [...wrap(machineLine(report))];
  if (report.reasons.length > 0) {
    lines.push('', 'No device of this machine can be behind an accelerated vSMMU:');
    for (const reason of report.reasons) lines.push(...reasonLines(reason, '  '));
  }
  for (const smmu of report.smmus) lines.push('', ...smmuLines(smmu));
  if (report.notAsked !== null && report.usable === 'unknown')
    lines.push('', ...wrap(`Hardware was not asked: ${report.notAsked}`));
  const usable = report.smmus
    .flatMap(({ devices }) => devices)
    .find((device) => device.usable === report.usable && report.usable !== 'no');
  if (usable !== undefined)
    lines.push('', `In a scenario: vsmmu run --host linux --device nic0=${usable.vfio?.path ?? ''}`);
  else lines.push('', 'The embedded host needs none of this: vsmmu run --host sim');
  return lines;
}

function machineLine({ kernel, iommufd }: ProbeReport): string {
  const { limit, exempt } = kernel.lockedMemory;
  const memory =
    exempt || limit === undefined
      ? 'Any amount of memory may be locked.'
      : `${Math.floor(limit / 2 ** 20)} MiB of memory may be locked.`;
  const file = { absent: 'is absent', refused: 'may not be opened', granted: 'may be opened' }[
    iommufd.access
  ];
  return `Linux ${kernel.release ?? '(unknown)'}. /dev/iommu ${file}. ${memory}`;
}

function smmuLines({ name, registers, devices }: SmmuReport): string[] {
  const bridges = devices.filter(({ reasons }) => reasons.some(({ code }) => code === 'BRIDGE')).length;
  const lines = wrap(registers === null ? name : `${name}: ${featuresOf(registers)}`);
  for (const device of devices)
    if (!device.reasons.some(({ code }) => code === 'BRIDGE')) lines.push(...deviceLines(device));
  if (bridges > 0) lines.push(`  and ${bridges} bridge${bridges === 1 ? '' : 's'}`);
  if (devices.length === 0) lines.push('  No device is behind it.');
  return lines;
}

function featuresOf(registers: Readonly<Record<string, string>>): string {
  const words = Object.fromEntries(
    Object.entries(registers).map(([register, value]) => [register, Number(value)]),
  );
  const ids = describeIds(words as unknown as Parameters<typeof describeIds>[0]);
  const granules = ([4, 16, 64] as const).filter((kib) => ids[`GRAN${kib}K`] === 1).join('/');
  const flag = (has: number, feature: string): string => (has === 0 ? `no ${feature}` : feature);
  return [
    `${OAS_BITS[ids.OAS]}-bit addresses`,
    `${granules} KiB granules`,
    ids.S1P === 1 && ids.S2P === 1 ? 'both stages' : `stage ${ids.S1P === 1 ? 1 : 2} only`,
    flag(ids.RIL, 'RIL'),
    flag(ids.ATS, 'ATS'),
    ids.SSIDSIZE === 0 ? 'no SubstreamIDs' : `${ids.SSIDSIZE}-bit SubstreamIDs`,
    flag(ids.FWB, 'FWB'),
  ].join(', ');
}

function deviceLines(device: DeviceReport): string[] {
  const { name, pci, driver, group, usable, properties, reasons, notes } = device;
  const what = [
    pci === undefined ? 'not PCI' : `${className(pci.classCode)} ${pci.id}`,
    group === undefined ? 'no group' : `group ${group.id}`,
    driver === undefined ? 'no driver' : `driver ${driver}`,
  ].join(', ');
  const verdict = {
    yes: 'can be used',
    no: reasons.length === 0 ? 'cannot be used, as said above' : 'cannot be used',
    unknown: 'may be usable',
  }[usable];
  const lines = wrap(
    `  ${name}  ${what}: ${verdict}${usable === 'yes' && properties !== null ? ` with ${propertyText(properties)}` : ''}`,
    '    ',
  );
  for (const reason of reasons) lines.push(...reasonLines(reason, '    '));
  for (const note of notes) lines.push(...wrap(`    ${note}`, '    '));
  return lines;
}

const propertyText = ({ ats, ril, ssidsize, oas, stall }: VsmmuProperties): string =>
  `ats=${ats ? 'on' : 'off'} ril=${ril ? 'on' : 'off'} ssidsize=${ssidsize} oas=${oas} stall=${stall ? 'on' : 'off'}`;

/** The base class and subclass of what people put behind SMMUs. */
const CLASSES: Readonly<Record<number, string>> = {
  0x0100: 'SCSI',
  0x0104: 'RAID',
  0x0106: 'SATA',
  0x0107: 'SAS',
  0x0108: 'NVMe',
  0x0200: 'Ethernet',
  0x0207: 'InfiniBand',
  0x0280: 'network',
  0x0300: 'VGA',
  0x0302: 'GPU',
  0x0403: 'audio',
  0x0c03: 'USB',
  0x1200: 'accelerator',
};

const className = (classCode: number): string =>
  CLASSES[classCode >>> 8] ?? `class ${(classCode >>> 8).toString(16).padStart(4, '0')}`;

function reasonLines({ text, commands }: Reason, indent: string): string[] {
  return [...wrap(`${indent}${text}`, indent), ...commands.map((command) => `${indent}  # ${command}`)];
}

/** Breaks at spaces. Spaces at the beginning stay. */
function wrap(text: string, indent = ''): string[] {
  const lines: string[] = [];
  let rest = text;
  while (rest.length > WIDTH) {
    const at = rest.lastIndexOf(' ', WIDTH);
    if (at <= indent.length) break;
    lines.push(rest.slice(0, at));
    rest = indent + rest.slice(at + 1);
  }
  return [...lines, rest];
}
