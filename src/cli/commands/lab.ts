/** `vsmmu lab`: what a real guest needs, and how to get it. */

import { buildLab } from '../../lab/lab-build.ts';
import { setup } from '../../lab/setup.ts';
import { describeStatus, labStatus } from '../../lab/status.ts';
import { EXIT } from '../exit.ts';

const print = (line: string): void => void process.stdout.write(`${line}\n`);

/** @throws LabError with code UNSUPPORTED_HERE or LAB_FETCH_FAILED. */
export async function labSetup(): Promise<number> {
  await setup({ progress: print });
  return EXIT.Fine;
}

/** @throws LabError with code UNSUPPORTED_HERE, LAB_FETCH_FAILED or LAB_BUILD_FAILED. */
export async function labBuild(): Promise<number> {
  await buildLab({ progress: print });
  return EXIT.Fine;
}

export async function labCheck({ json = false }: { readonly json?: boolean }): Promise<number> {
  const status = await labStatus();
  const complete = status.qemu.found && status.kernel.found && status.busybox.found;
  if (json) print(JSON.stringify({ complete, ...status }));
  else {
    for (const line of describeStatus(status)) print(line);
    if (!complete) print('"vsmmu lab setup" fetches what is missing from Debian packages.');
  }
  return complete ? EXIT.Fine : EXIT.NotPossibleHere;
}
