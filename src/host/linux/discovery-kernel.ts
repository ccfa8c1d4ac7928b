/** The kernel, and what it allows this process. */

import type { HostFiles } from './host-files.ts';

/** Options on which an accelerated vSMMU depends. */
const OPTIONS = [
  'IOMMUFD',
  'VFIO_PCI',
  'VFIO_DEVICE_CDEV',
  'ARM_SMMU_V3',
  'ARM_SMMU_V3_IOMMUFD',
  'ARM_SMMU_V3_SVA',
] as const;
export type KernelOption = (typeof OPTIONS)[number];

export interface KernelFacts {
  /** As `uname -r` says it; undefined if it is not Linux. */
  readonly release: string | undefined;
  /** As `uname -m` says it, from Linux 6.1 on. */
  readonly architecture: string | undefined;
  /** `y`, `m` or `n`; undefined if the kernel's configuration is not to be found. */
  readonly options: Readonly<Record<KernelOption, 'y' | 'm' | 'n'>> | undefined;
  readonly lockedMemory: {
    /** RLIMIT_MEMLOCK in bytes; undefined is no limit. */
    readonly limit: number | undefined;
    /** CAP_IPC_LOCK: iommufd does not count what this process pins. */
    readonly exempt: boolean;
  };
}

export function readKernel(files: HostFiles): KernelFacts {
  const release = files.text('/proc/sys/kernel/osrelease');
  const config = files.text('/proc/config.gz') ?? files.text(`/boot/config-${release}`);
  return {
    release,
    architecture: files.text('/proc/sys/kernel/arch'),
    options: config === undefined ? undefined : optionsIn(config),
    lockedMemory: {
      limit: memlockLimit(files.text('/proc/self/limits') ?? ''),
      exempt: hasCapability(files.text('/proc/self/status') ?? '', CAP_IPC_LOCK),
    },
  };
}

function optionsIn(config: string): Record<KernelOption, 'y' | 'm' | 'n'> {
  const options: Partial<Record<KernelOption, 'y' | 'm' | 'n'>> = {};
  for (const name of OPTIONS)
    options[name] = (new RegExp(`^CONFIG_${name}=([ym])$`, 'm').exec(config)?.[1] ?? 'n') as 'y' | 'm' | 'n';
  return options as Record<KernelOption, 'y' | 'm' | 'n'>;
}

/** The soft limit, which is the first number of its line. */
function memlockLimit(limits: string): number | undefined {
  const limit = /^Max locked memory\s+(\d+)/m.exec(limits)?.[1];
  return limit === undefined ? undefined : Number(limit);
}

const CAP_IPC_LOCK = 14n;

function hasCapability(status: string, bit: bigint): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> bit) & 1n) === 1n;
}

/** Whether a release such as `6.14.2-1-arm64` is at least `major.minor`; unknown ones are taken to be. */
export function isAtLeast(release: string | undefined, major: number, minor: number): boolean {
  const match = /^(\d+)\.(\d+)/.exec(release ?? '');
  if (match === null) return true;
  const [, has, hasMinor] = match.map(Number);
  return has > major || (has === major && hasMinor >= minor);
}
