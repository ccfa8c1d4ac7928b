/** Steps as a person would say them, short enough for the first column. */

import type { Step } from './steps.ts';

const hex = (value: bigint): string => `0x${value.toString(16)}`;

/** @returns about 25 characters. */
export function describeStep(step: Step): string {
  switch (step.action) {
    case 'plug':
    case 'unplug':
    case 'attach':
    case 'bypass':
    case 'detach':
      return `${step.action} ${step.args.device}`;
    case 'probe':
      return step.args.kdump ? 'probe (kdump kernel)' : 'probe the driver';
    case 'shutdown':
      return 'shut the driver down';
    case 'reset':
      return 'system reset';
    case 'eventq':
      return `EVENTQEN := ${step.args.on ? 1 : 0}`;
    case 'map':
    case 'unmap':
      return `${step.action} ${hex(step.args.iova)}`;
    case 'dma':
      return step.args.write === undefined
        ? `read ${hex(step.args.read ?? 0n)}`
        : `write ${hex(step.args.write)}`;
    case 'run':
      return `run ${step.args.command}`.slice(0, 25);
    case 'storage':
      return `storage ${step.args.mib} MiB`;
    case 'boot':
    case 'reboot':
    case 'expect':
      return step.action;
  }
}
