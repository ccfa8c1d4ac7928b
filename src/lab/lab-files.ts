import { fileURLToPath } from 'node:url';

/** The lab's files that are data, beside the program's own folder. */
const file = (name: string): string => fileURLToPath(new URL(`../../lab/${name}`, import.meta.url));

export const LAB_FILES = {
  /** What the lab's kernel has, over nothing at all. */
  kernelConfig: file('kernel.config'),
  /** The first program of the lab's guest. */
  init: file('init'),
} as const;
