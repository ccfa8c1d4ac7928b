import { labStatus } from '../../src/lab/status.ts';
import { QemuOracle } from './qemu-oracle.ts';

/**
 * The QEMU of the lab.
 * @throws Error if there is none, saying how to get it
 */
export async function findQemu(): Promise<QemuOracle> {
  const { qemu } = await labStatus();
  if (!qemu.found)
    throw new Error(
      `There is no QEMU to compare with (${qemu.reason}). Run "npm run lab:setup" to fetch it.`,
    );
  console.log(`Compared with ${qemu.description}.`);
  return new QemuOracle(qemu.value);
}
