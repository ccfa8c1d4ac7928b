import { spawn } from 'node:child_process';

export interface Finished {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Characters kept of each output; the lists that we ask apt for are far smaller. */
const KEEP = 8 << 20;

/** Runs a program to its end. A program that is not there gives status 127, as a shell does. */
export async function run(
  file: string,
  args: readonly string[],
  options: { cwd?: string; environment?: Record<string, string> } = {},
): Promise<Finished> {
  const child = spawn(file, [...args], {
    cwd: options.cwd,
    // Messages are read by us, so they are to be in one language.
    env: { ...process.env, LC_ALL: 'C.UTF-8', ...options.environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const kept = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      kept[name] = (kept[name] + text).slice(-KEEP);
    });
  }
  return new Promise((resolve, reject) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') resolve({ status: 127, stdout: '', stderr: error.message });
      else reject(error);
    });
    child.on('close', (status) => {
      resolve({ status, ...kept });
    });
  });
}
