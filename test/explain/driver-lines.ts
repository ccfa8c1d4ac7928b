/** What the kernel's driver prints: samples of real kernels, and one fault as lines and in words. */

import { readFileSync } from 'node:fs';
import { explainText, type Item } from '../../src/explain/text.ts';

export const sample = (name: string): string =>
  readFileSync(new URL(`samples/${name}`, import.meta.url), 'utf8');
export const KERNEL_6_12 = sample('dmesg-6.12-event-and-gerror.txt');
export const KERNEL_7_3 = sample('dmesg-7.3-event-and-gerror.txt');

/** The driver's lines with a prefix each. */
export const driver = (lines: readonly string[], smmu = '3e000000.smmuv3'): string =>
  lines.map((line) => `[    2.387067] arm-smmu-v3 ${smmu}: ${line}`).join('\n');

export const RAW = [
  'event 0x10 received:',
  '\t0x0000000800000010',
  '\t0x0000020800000000',
  '\t0x00000deadbeef000',
  '\t0x0000000000000000',
];

export const DECODED = [
  'event: F_TRANSLATION client: 0000:00:01.0 sid: 0x8 ssid: 0x0 iova: 0xdeadbeef000 ipa: 0x0',
  'unpriv data read s1 "Input address caused fault" stag: 0x0',
];

export const SUMMARY_RAW =
  'An unprivileged data read of IOVA 0xdeadbeef000 by the device with StreamID 0x8 was terminated: stage 1 has no mapping for it.';

export const SUMMARY_CLIENT = SUMMARY_RAW.replace(
  'the device with StreamID 0x8',
  '0000:00:01.0 (StreamID 0x8)',
);

export const events = (items: readonly Item[]): Item[] => items.filter(({ kind }) => kind === 'event');

/** What cannot be read, each as `<line>:<column>: <message>`. */
export const problemsOf = (text: string): string[] =>
  explainText(text).problems.map(({ line, column, message }) => `${line}:${column}: ${message}`);
