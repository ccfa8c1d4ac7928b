/** Boots the lab, with the one table of its firmware replaced that has to be. */

import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { readIort, withForcedWriteBack, writeIort } from '../firmware/iort.ts';
import { type CpioEntry, writeCpio } from '../qemu/cpio.ts';
import { buildInitramfs } from '../qemu/initramfs.ts';
import { RunFolder } from '../qemu/run-folder.ts';
import { cacheFolder, type Environment, publishFolder } from './cache-folder.ts';
import { LabError } from './errors.ts';
import type { HostLab } from './host-lab.ts';
import { LAB_FILES } from './lab-files.ts';
import { LabGuest } from './lab-guest.ts';
import {
  DEFAULT_LAB_MACHINE,
  labMachineArguments,
  type LabMachineOptions,
  type Share,
} from './lab-machine.ts';
import { readManifest, writeManifest } from './manifest.ts';

export interface BootOptions {
  /** For sockets and files; must outlive the guest. */
  readonly folder: RunFolder;
  readonly machine?: Partial<LabMachineOptions>;
  /** More folders that programs in the lab find below /lab, by name. */
  readonly shares?: readonly Share[];
  readonly append?: string;
  /** False leaves the firmware's own table of SMMUs; Linux then gives no VMM a stage of its own. */
  readonly nesting?: boolean;
  readonly timeoutMs?: number;
}

/**
 * Boots the lab with SMMUs of which Linux lets VMMs use both stages, unless told. Programs find Node.js as `node`, and
 * the dependencies of vsmmu from anywhere below /lab.
 * @throws {QemuError} see {@link LabGuest.boot}. @throws {LabError} LAB_BUILD_FAILED if Linux does not take our tables.
 */
export async function bootHostLab(
  lab: HostLab,
  options: BootOptions,
  environment: Environment = process.env,
): Promise<LabGuest> {
  if (options.nesting === false) return boot(lab, options);
  const iort = await tablesOf(lab, options.machine, environment);
  const guest = await boot(lab, options, iort);
  const { status } = await guest.run("dmesg | grep -q 'Table Upgrade: override \\[IORT'");
  if (status === 0) return guest;
  await guest.close();
  throw new LabError(
    'LAB_BUILD_FAILED',
    'The lab’s Linux does not take the table of SMMUs that we made for it.',
    'Please report this as a bug.',
  );
}

/** @param iort ACPI's table of SMMUs, instead of the firmware's. */
async function boot(lab: HostLab, options: BootOptions, iort?: Uint8Array): Promise<LabGuest> {
  const { folder, machine, shares = [], append, timeoutMs } = options;
  const link = (name: string, target: string): CpioEntry => ({
    name,
    kind: 'symlink',
    mode: 0o777,
    data: target,
  });
  const directory = (name: string): CpioEntry => ({ name, kind: 'directory', mode: 0o755 });
  const initramfs = buildInitramfs(await readFile(lab.busybox), await readFile(LAB_FILES.init), [
    directory('lab'),
    link('lib', '/lab/node/usr/lib'),
    link('usr/lib', '/lab/node/usr/lib'),
    link('usr/share', '/lab/node/usr/share'),
    link('usr/bin/node', '/lab/node/usr/bin/node'),
    link('lab/node_modules', '/lab/modules/node_modules'),
  ]);
  return LabGuest.boot({
    qemu: lab.qemu,
    firmware: lab.firmware,
    kernel: lab.kernel,
    initramfs: iort === undefined ? initramfs : concatenated(tablesArchive(iort), initramfs),
    shares: [{ name: 'node', path: lab.nodeRoot }, { name: 'modules', path: lab.modules }, ...shares],
    folder,
    ...(machine !== undefined && { machine }),
    ...(append !== undefined && { append }),
    ...(timeoutMs !== undefined && { timeoutMs }),
  });
}

/** Linux takes ACPI tables from here, before anything else; the archive is uncompressed and comes first. */
const tablesArchive = (iort: Uint8Array): Uint8Array =>
  writeCpio([
    ...['kernel', 'kernel/firmware', 'kernel/firmware/acpi'].map((name): CpioEntry => ({
      name,
      kind: 'directory',
      mode: 0o755,
    })),
    { name: 'kernel/firmware/acpi/iort.aml', kind: 'file', mode: 0o644, data: iort },
  ]);

function concatenated(first: Uint8Array, second: Uint8Array): Uint8Array {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/**
 * The folder in the cache with the tables of a machine. They follow from the machine, QEMU and the firmware.
 * @returns its name.
 */
function tablesFolderName(lab: HostLab, machine: Partial<LabMachineOptions> = {}): string {
  const inputs = [
    1,
    labMachineArguments({ ...DEFAULT_LAB_MACHINE, ...machine }),
    lab.description.filter((line) => /^(qemu|firmware): /.test(line)),
  ];
  return `tables-${createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 12)}`;
}

/** The file in that folder. */
const TABLES_IORT = 'iort.aml';

/** The table of SMMUs for a machine: QEMU's own, as a boot shows it, changed in one bit. It is made once. */
async function tablesOf(
  lab: HostLab,
  machine: Partial<LabMachineOptions> | undefined,
  environment: Environment,
): Promise<Uint8Array> {
  const cache = cacheFolder(environment);
  const name = tablesFolderName(lab, machine);
  const file = join(cache, name, TABLES_IORT);
  if ((await readManifest(join(cache, name))) === undefined) {
    const iort = writeIort(withForcedWriteBack(readIort(await dumpIort(lab, machine))));
    await publishFolder(cache, name, async (folder) => {
      await writeFile(join(folder, TABLES_IORT), iort);
      await writeManifest(folder, {
        component: 'tables',
        description: 'IORT of the lab’s machine',
        packages: [],
        files: { iort: TABLES_IORT },
        created: new Date().toISOString(),
      });
    });
  }
  return readFile(file);
}

async function dumpIort(lab: HostLab, machine: Partial<LabMachineOptions> = {}): Promise<Uint8Array> {
  const folder = new RunFolder();
  try {
    const guest = await boot(lab, { folder, machine });
    try {
      return Buffer.from(await guest.check('base64 /sys/firmware/acpi/tables/IORT'), 'base64');
    } finally {
      await guest.close();
    }
  } finally {
    folder.remove();
  }
}
