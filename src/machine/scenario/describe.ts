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
    case 'on-fault':
      return `on a fault: ${step.args.do}`;
    case 'answer':
      return `answer ${step.args.device}: ${step.args.with}`;
    case 'explain':
      return `explain ${hex(step.args.iova)}`;
    case 'setup':
      return 'queues, stream table';
    case 'cr0': {
      const { smmuen, eventqen, cmdqen } = step.args;
      const bits = Object.entries({ SMMUEN: smmuen, EVENTQEN: eventqen, CMDQEN: cmdqen });
      return bits.flatMap(([name, on]) => (on === undefined ? [] : [`${name}=${on ? 1 : 0}`])).join(' ');
    }
    case 'gbpa':
      return `GBPA: ${step.args.to}`;
    case 'move-eventq':
      return `event queue of ${2 ** step.args.log2}`;
    case 'move-strtab':
      return `stream table ${step.args.table}`;
    case 'ste': {
      const { device, is, space } = step.args;
      return `STE ${device}: ${is}${is === 'translate' ? ` ${space}` : ''}`;
    }
    case 'cd':
      return `CD ${step.args.space}: tables ${step.args.root}`;
    case 'page':
      return `page ${step.args.space}: ${step.args.frame === undefined ? 'nothing' : `frame ${step.args.frame}`}`;
    case 'cfgi':
      return step.args.device === undefined ? 'CFGI_ALL' : `CFGI_STE ${step.args.device}`;
    case 'cfgi-cd':
      return `CFGI_CD${step.args.all === true ? '_ALL' : ''} ${step.args.device}`;
    case 'tlbi':
      return step.args.space === undefined ? 'TLBI_NSNH_ALL' : `TLBI_NH_ASID ${step.args.space}`;
    case 'tlbi-va': {
      const { space, range } = step.args;
      return `TLBI_NH_VA${space === undefined ? 'A' : ` ${space}`}${range === true ? ', a range' : ''}`;
    }
    case 'sync':
      return 'CMD_SYNC';
    case 'take':
      return `the guest takes ${step.args.count ?? 'all'}`;
    case 'deliver':
      return 'a task of the host';
    case 'retry':
      return 'time to try again';
    case 'move':
      return `${step.args.device} at ${step.args.at}`;
    case 'remove':
      return `the host wants ${step.args.device}`;
    case 'race':
      return 'DMA all the time';
    case 'migrate':
      return 'save and go on elsewhere';
    case 'fail':
      return `fail ${step.args.ioctl.replace(/^.*?_/, '')} ${step.args.nth}`.slice(0, 25);
    case 'check':
      return 'check all';
    case 'run':
      return `run ${step.args.command}`.slice(0, 25);
    case 'storage':
      return `storage ${step.args.mib} MiB`;
    case 'snapshot':
    case 'restore':
    case 'boot':
    case 'reboot':
    case 'expect':
      return step.action;
  }
}
