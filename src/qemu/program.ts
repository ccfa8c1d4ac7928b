import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { QemuError } from './errors.ts';

/**
 * How to run a `qemu-system-aarch64`: an installed one, or one unpacked from packages that runs by its own loader and
 * libraries, so that neither root nor chroot is needed.
 */
export interface QemuProgram {
  /** What is executed: QEMU itself, or its dynamic loader. */
  file: string;
  /** Arguments in front of all others. */
  leadingArguments: readonly string[];
  /** Variables added to the environment. */
  environment: Readonly<Record<string, string>>;
}

/** The oldest QEMU with a vfio-user client. */
export const QEMU_LEAST = [10, 1, 0] as const;

/** Since this version QEMU can promise to end with the process that started it. */
const EXIT_WITH_PARENT_SINCE = [10, 2, 0] as const;

export type QemuVersion = readonly [major: number, minor: number, micro: number];

export interface QemuFacts {
  version: QemuVersion;
  /** `-run-with exit-with-parent=on` exists. */
  canExitWithParent: boolean;
}

/** A QEMU that is installed. */
export const installedQemu = (file: string): QemuProgram => ({ file, leadingArguments: [], environment: {} });

const atLeast = (version: QemuVersion, least: QemuVersion): boolean => {
  for (const [i, part] of version.entries()) {
    const wanted = least[i] ?? 0;
    if (part !== wanted) return part > wanted;
  }
  return true;
};

/**
 * Reads the version out of what `qemu-system-aarch64 --version` prints.
 * @returns undefined if this is not the text of a QEMU.
 */
export function parseVersion(text: string): QemuVersion | undefined {
  const match = /^QEMU emulator version (\d+)\.(\d+)\.(\d+)/m.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2]), Number(match[3])];
}

async function output(program: QemuProgram, ...args: string[]): Promise<string> {
  const run = promisify(execFile);
  const { stdout, stderr } = await run(program.file, [...program.leadingArguments, ...args], {
    env: { ...process.env, ...program.environment },
    timeout: 30_000,
    maxBuffer: 4 << 20,
  });
  return stdout + stderr;
}

/**
 * Asks a QEMU whether it can do what we need.
 * @throws {QemuError} QEMU_UNUSABLE if it cannot be run, is older than {@link QEMU_LEAST} or has no vfio-user-pci.
 */
export async function probeQemu(program: QemuProgram): Promise<QemuFacts> {
  const hint = 'Run "vsmmu lab setup", or name another one with --qemu.';
  let text: string;
  let devices: string;
  try {
    text = await output(program, '--version');
    devices = await output(program, '-M', 'none', '-device', 'help');
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    throw new QemuError('QEMU_UNUSABLE', `${program.file} cannot be run: ${reason}`, hint);
  }
  const version = parseVersion(text);
  if (version === undefined) throw new QemuError('QEMU_UNUSABLE', `${program.file} is not a QEMU.`, hint);
  if (!atLeast(version, QEMU_LEAST)) {
    const least = QEMU_LEAST.slice(0, 2).join('.');
    throw new QemuError(
      'QEMU_UNUSABLE',
      `${program.file} is QEMU ${version.join('.')}; ${least} is needed.`,
      hint,
    );
  }
  if (!devices.includes('"vfio-user-pci"')) {
    throw new QemuError('QEMU_UNUSABLE', `${program.file} was built without vfio-user-pci.`, hint);
  }
  return { version, canExitWithParent: atLeast(version, EXIT_WITH_PARENT_SINCE) };
}
