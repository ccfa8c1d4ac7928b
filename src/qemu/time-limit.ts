import { QemuError } from './errors.ts';

/**
 * `promise`, or a TIMEOUT after `timeoutMs`. The timer does not outlive the promise.
 * @param what the sentence of the error, without full stop; called only if it is needed.
 */
export async function withTimeLimit<T>(
  promise: Promise<T>,
  timeoutMs: number,
  what: () => string,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new QemuError('TIMEOUT', `${what()} (waited ${timeoutMs / 1000} s).`));
    }, timeoutMs);
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}
