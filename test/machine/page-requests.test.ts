/** Page requests of a device, on a host that hands them over, which Linux 7.3 does not. */

import { describe, expect, it } from 'vitest';
import type { SmmuProperties } from '../../src/accel/properties.ts';
import { priResp } from '../../src/guest/commands.ts';
import type { GuestPageRequest } from '../../src/guest/page-request.ts';
import { PRI_SMMU } from '../../src/host/sim/profiles.ts';
import { takeSnapshot } from '../../src/machine/snapshot.ts';
import { PRI_RESP } from '../../src/spec/commands.ts';
import { CR0, OFFSET } from '../../src/spec/registers.ts';
import { OUTCOME } from '../../src/smmu/transaction.ts';
import { BenchHost, BenchMachine, BUFFERS, RAM } from '../support/bench-machine.ts';

const PAGE = 0x8000_0000n;
const WRITTEN = 0xabcd_0123;

interface Rig {
  readonly machine: BenchMachine;
  readonly requests: GuestPageRequest[];
  answer: (request: GuestPageRequest) => 'success' | 'invalid' | 'later';
}

function make(properties: SmmuProperties = { ats: 'on', pri: 'on' }, pageRequests = true): Rig {
  const requests: GuestPageRequest[] = [];
  const rig: Rig = {
    requests,
    answer: () => 'later',
    machine: new BenchMachine(
      new BenchHost({ ids: PRI_SMMU, device: { ats: true, pageRequests: true }, pageRequests }),
      {
        onPageRequest: (request) => {
          requests.push(request);
          return rig.answer(request);
        },
      },
      false,
      undefined,
      { properties, faultsOf: () => (pageRequests ? 'page-request' : undefined) },
    ),
  };
  return rig;
}

function running({ machine }: Rig): ReturnType<BenchMachine['attach']> {
  machine.plug();
  machine.guest.probe({ cmdqLog2: 8, eventqLog2: 4 });
  return machine.attach();
}

const inRam = (machine: BenchMachine, gpa: number): number =>
  new DataView(machine.host.ram.buffer).getUint32(gpa - RAM, true);
const requestsOf = (machine: BenchMachine) => machine.machine.state.faults[1];
const resumed = (machine: BenchMachine) => machine.host.testers[0].resumed;

describe('a device that asks for a page', () => {
  it('gets it: the guest maps it, answers, and the transfer goes on, without an event', () => {
    const rig = make();
    const { machine } = rig;
    const domain = running(rig);
    expect(machine.guest.features.pri).toBe(true);
    rig.answer = ({ iova }) => {
      domain.map(iova, BUFFERS, 0x1000);
      return 'success';
    };
    expect(machine.dma(PAGE + 0x24n)).toBe(OUTCOME.Stalled);
    expect(rig.requests).toEqual([
      {
        sid: 8,
        ssv: false,
        ssid: 0,
        group: 1,
        last: true,
        read: false,
        write: true,
        execute: false,
        privileged: false,
        iova: PAGE,
      },
    ]);
    expect(resumed(machine)).toEqual([OUTCOME.Ok]);
    expect(inRam(machine, BUFFERS + 0x24)).toBe(WRITTEN);
    expect(machine.takeEvents()).toEqual([]);
    expect(requestsOf(machine)).toMatchObject({
      outstanding: 0,
      counters: { read: 1, delivered: 1, retried: 1 },
    });
    expect(machine.guest.warnings).toEqual([]);
    machine.expectSettled();
    machine.close();
  });

  it('is refused it, and gives up', () => {
    const rig = make();
    running(rig);
    rig.answer = () => 'invalid';
    rig.machine.dma(PAGE);
    expect(resumed(rig.machine)).toEqual([OUTCOME.Abort]);
    expect(requestsOf(rig.machine).counters).toMatchObject({ aborted: 1 });
  });

  it('whose requests find the PRI queue full is answered by the SMMU itself, and asks again (8.1)', () => {
    const rig = make();
    const { machine } = rig;
    running(rig);
    machine.interruptsOff = true;
    // 2^8 entries. The one that does not fit gets Success, and the device asks again until the overflow is acknowledged.
    for (let i = 0; i < 256; i++) machine.dma(PAGE + BigInt(i) * 0x1000n);
    expect(requestsOf(machine)).toMatchObject({
      outstanding: 256,
      counters: { delivered: 256, discarded: 0 },
    });
    machine.host.testers[0].dmaWrite32(PAGE - 0x1000n, 1);
    machine.host.scheduler.run(20);
    const { counters } = requestsOf(machine);
    expect(counters.discarded).toBeGreaterThan(0);
    expect(counters.retried).toBe(counters.discarded);
    expect(requestsOf(machine).outstanding).toBeLessThanOrEqual(257);
  });
});

describe('a guest that answers as it likes', () => {
  it('another group, another StreamID and a second answer do nothing', () => {
    const rig = make();
    const { machine } = rig;
    running(rig);
    machine.dma(PAGE);
    const [{ group }] = rig.requests;
    const { commands } = machine.guest;
    commands.issueAndSync(priResp(8, 0, false, (group + 1) & 0x1ff, PRI_RESP.Success));
    commands.issueAndSync(priResp(9, 0, false, group, PRI_RESP.Success));
    expect(requestsOf(machine)).toMatchObject({ outstanding: 1, counters: { unknown: 2 } });
    commands.issueAndSync(priResp(8, 0, false, group, PRI_RESP.ResponseFailure));
    commands.issueAndSync(priResp(8, 0, false, group, PRI_RESP.Success));
    machine.settle();
    expect(resumed(machine)).toEqual([OUTCOME.Abort]);
    expect(requestsOf(machine)).toMatchObject({ outstanding: 0, counters: { unknown: 3, refused: 0 } });
  });
});

describe('what waits is answered when nobody could answer it any more', () => {
  it.each<[string, (machine: BenchMachine) => void]>([
    ['the device is unplugged', (machine) => machine.unplug()],
    ['the machine is reset', (machine) => machine.reset()],
    ['the driver shuts down', (machine) => machine.guest.shutdown()],
    [
      'PRIQEN goes to 0',
      ({ machine: { smmu } }) =>
        smmu.write(OFFSET.CR0, 4, 0, (smmu.read(OFFSET.CR0, 4) & ~CR0.PRIQEN.inPlace) >>> 0),
    ],
    ['the stream is aborted', (machine) => machine.guest.detach(8)],
  ])('%s', (_, act) => {
    const rig = make();
    const { machine } = rig;
    running(rig);
    machine.dma(PAGE);
    expect(requestsOf(machine).outstanding).toBe(1);
    act(machine);
    machine.settle();
    expect(resumed(machine)).toEqual([OUTCOME.Abort]);
    expect(requestsOf(machine).outstanding).toBe(0);
    machine.expectSettled();
    machine.close();
  });

  it('a snapshot has the device ask again', () => {
    const rig = make();
    const { machine } = rig;
    running(rig);
    machine.dma(PAGE);
    takeSnapshot(machine.machine);
    expect(requestsOf(machine)).toMatchObject({ outstanding: 0, counters: { released: 1 } });
    machine.settle();
    expect(rig.requests.map(({ iova }) => iova)).toEqual([PAGE, PAGE]);
  });
});

describe('the PRI queue is not offered', () => {
  it('by default, nor where auto finds a host that denies page requests: Linux 7.3', () => {
    for (const properties of [{}, { ats: 'auto', pri: 'auto' }] as const) {
      const rig = make(properties, false);
      const { machine } = rig;
      running(rig);
      expect(machine.guest.features.pri).toBe(false);
      machine.dma(PAGE);
      expect(rig.requests).toEqual([]);
      if ('pri' in properties) {
        // The device asked; the host said no, and told its own log.
        expect(resumed(machine)).toEqual([OUTCOME.Abort]);
        expect(machine.host.sim.dmesg.join('\n')).toContain('unexpected PRI request received:');
      }
      machine.expectSettled();
    }
  });

  it('without ATS, where auto follows the host', () => {
    const rig = make({ ats: 'off', pri: 'auto' });
    running(rig);
    expect(rig.machine.guest.features.pri).toBe(false);
  });

  it('where auto finds a host that hands them over, it is', () => {
    const rig = make({ ats: 'auto', pri: 'auto' });
    running(rig);
    expect(rig.machine.guest.features.pri).toBe(true);
    rig.machine.expectSettled();
  });

  it('pri=on on a host that denies them is refused', () => {
    const { machine } = make({ ats: 'on', pri: 'on' }, false);
    expect(() => machine.plug()).toThrow('pri=on was asked for');
    expect(() => make({ pri: 'on' })).toThrow('PRI needs ATS');
  });
});
