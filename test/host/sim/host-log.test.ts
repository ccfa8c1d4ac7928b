/** What the host prints, and what it therefore does not tell the guest. */

import { describe, expect, it } from 'vitest';
import { GUEST, IPA_HOLE, STE } from '../../contract/guest.ts';
import { nestedVm } from '../../contract/vm.ts';
import { machine, simRig, type Machine } from './machine.ts';

const DEV = 'arm-smmu-v3 arm-smmu-v3.0.auto: ';
const UNMAPPED = 0x1000_1000n;

function running(options: Parameters<typeof machine>[0] = {}) {
  const simulated = machine(options);
  return { ...simulated, ...nestedVm(simRig(simulated)), endpoint: simulated.a };
}

/** Events that the log names, without the raw words. */
const named = (simulated: Pick<Machine, 'host'>): string[] =>
  simulated.host.dmesg
    .filter((line) => line.includes('event:') || line.includes('priv '))
    .map((line) => line.slice(DEV.length));

describe('the host’s log', () => {
  it('is empty as long as a guest’s faults reach the guest', () => {
    const { vm, a, host, queue } = running();
    vm.dma(a, UNMAPPED);
    vm.dmaLands(a, 0x1000_0000n);
    expect(vm.events(queue.fd)).toHaveLength(1);
    expect(host.dmesg).toEqual([]);
  });

  it('has the raw words and the words for a hole in stage 2, as Linux prints them', () => {
    const { endpoint, host, vm, queue } = running();
    endpoint.dmaWrite32(0x1000_4000n, 0);
    expect(host.dmesg).toEqual([
      `${DEV}event 0x10 received:`,
      `${DEV}\t0x0000002000000010`,
      `${DEV}\t0x0000028000000000`,
      `${DEV}\t0x0000000010004000`,
      `${DEV}\t0x0000000300000000`,
      `${DEV}event: F_TRANSLATION client: 0000:00:04.0 sid: 0x20 ssid: 0x0 iova: 0x10004000 ipa: 0x300000000`,
      `${DEV}unpriv data write s2 "Input address caused fault" stag: 0x0`,
    ]);
    expect(vm.events(queue.fd)).toEqual([]);
  });

  it('has a hole that a CD fetch hit', () => {
    const simulated = running();
    const { vm, a, viommu, endpoint } = simulated;
    vm.attach(a, vm.nested(viommu, a.id, [1n | (5n << 1n) | IPA_HOLE, STE.S1[1]]));
    endpoint.dmaRead(0x1000_0000n, new Uint8Array(4));
    expect(named(simulated)).toEqual([
      'event: F_TRANSLATION client: 0000:00:04.0 sid: 0x20 ssid: 0x0 iova: 0x10000000 ipa: 0x300000000',
      'unpriv data read s2 "CD fetch" stag: 0x0',
    ]);
  });

  it('has a hole that a table walk hit', () => {
    const simulated = running();
    const { vm, endpoint } = simulated;
    // The entry of 0x40000000..0x7fffffff.
    vm.guest.store(GUEST.Level1 + 8, IPA_HOLE | 3n);
    endpoint.dmaWrite32(0x4000_0000n, 0);
    expect(named(simulated)).toEqual([
      'event: F_TRANSLATION client: 0000:00:04.0 sid: 0x20 ssid: 0x0 iova: 0x40000000 ipa: 0x300000000',
      'unpriv data write s2 "Stage 1 translation table fetch" ttd_write stag: 0x0',
    ]);
  });

  it('has the faults of a guest without an event queue', () => {
    const simulated = running();
    const { vm, a, queue, host } = simulated;
    host.close(queue.fd);
    vm.destroy(queue.id);
    vm.dma(a, UNMAPPED);
    expect(named(simulated)).toEqual([
      'event: F_TRANSLATION client: 0000:00:04.0 sid: 0x20 ssid: 0x0 iova: 0x10001000 ipa: 0x0',
      'unpriv data write s1 "Input address caused fault" stag: 0x0',
    ]);
  });

  it('has the faults of plain stage 2, and of a page table of the host’s own', () => {
    const simulated = running();
    const { vm, a, ioas, parent } = simulated;
    vm.attach(a, parent);
    vm.dma(a, IPA_HOLE);
    vm.attach(a, ioas);
    vm.dma(a, IPA_HOLE);
    expect(named(simulated).filter((line) => !line.startsWith('event'))).toEqual([
      'unpriv data write s2 "Input address caused fault" stag: 0x0',
      'unpriv data write s1 "Input address caused fault" stag: 0x0',
    ]);
  });

  it('has nothing of blocked and aborting devices', () => {
    const { vm, a, viommu, host } = running();
    vm.attach(a, vm.nested(viommu, a.id, STE.Abort));
    vm.dma(a, UNMAPPED);
    vm.detach(a);
    vm.dma(a, UNMAPPED);
    expect(host.dmesg).toEqual([]);
  });

  it('has ten events in five seconds, and how many were left out when these are over', () => {
    let now = 1000;
    const simulated = running({ host: { now: () => now } });
    const { vm, a, host } = simulated;
    const events = (): number => host.dmesg.filter((line) => line.includes('event: F_')).length;
    for (let i = 0; i < 25; i++) vm.dma(a, 0x1000_4000n);
    expect(events()).toBe(10);
    now += 5000;
    vm.dma(a, 0x1000_4000n);
    expect(events()).toBe(10);
    now += 1;
    vm.dma(a, 0x1000_4000n);
    expect(events()).toBe(11);
    expect(host.dmesg).toContain('arm_smmu_dump_event: 16 callbacks suppressed');
    expect(simulated.smmu.events.unhandled).toBe(27);
  });

  it('says that events were lost in the SMMU’s own queue; the guest sees no gap', () => {
    const { vm, a, viommu, queue, smmu, host } = running();
    host.close(queue.fd);
    vm.destroy(queue.id);
    const { fd } = vm.veventq(viommu, 4096);
    smmu.holdInterrupts = true;
    const room = 2 ** smmu.events.log2Size;
    for (let i = 0; i < room + 5; i++) vm.dma(a, UNMAPPED);
    expect(vm.events(fd)).toEqual([]);
    smmu.holdInterrupts = false;
    smmu.handleInterrupts();
    const events = vm.events(fd);
    expect(events).toHaveLength(room);
    expect(events.some(({ lost }) => lost)).toBe(false);
    expect(host.dmesg).toEqual([`${DEV}EVTQ overflow detected -- events lost`]);
    vm.dma(a, UNMAPPED);
    expect(vm.events(fd)).toMatchObject([{ sequence: room, lost: false }]);
  });
});

describe('the physical command queue', () => {
  it('that does not answer makes an invalidation fail with ETIMEDOUT at the end of that batch', () => {
    const { vm, viommu, smmu, host } = running();
    const commands = Array.from({ length: 70 }, () => [0x30n, 0n] as const);
    smmu.commands.timeouts = 1;
    expect(vm.invalidate(viommu, commands)).toEqual({ result: 'ETIMEDOUT', done: 62 });
    expect(host.dmesg).toHaveLength(1);
    expect(host.dmesg[0]).toMatch(
      /CMD_SYNC timeout at 0x[0-9a-f]{8} \[hwprod 0x[0-9a-f]{8}, hwcons 0x[0-9a-f]{8}\]$/,
    );
    expect(vm.invalidate(viommu, commands)).toEqual({ result: 'OK', done: 70 });
  });

  it('skips a command that the SMMU refuses, says so, and goes on', () => {
    const { vm, a, viommu, smmu, host } = running();
    expect(vm.dmaLands(a, 0x1000_0000n)).toBe('D0');
    vm.guest.map(0x1000_0000, BigInt(GUEST.D1));
    // An unknown opcode, then TLBI_NSNH_ALL.
    const words = Uint32Array.of(0xff, 0x1234, 0x5678, 0, 0x30, 0, 0, 0);
    expect(smmu.submit(words, 2)).toBe(0);
    expect(vm.dmaLands(a, 0x1000_0000n)).toBe('D1');
    const lines = host.dmesg.map((line) => line.slice(DEV.length));
    expect(lines).toEqual([
      'unexpected global error reported (0x00000001), this could be serious',
      expect.stringMatching(/^CMDQ error \(cons 0x01[0-9a-f]{6}\): Illegal command$/),
      'skipping command in error state:',
      '\t0x00001234000000ff',
      '\t0x0000000000005678',
    ]);
    expect(vm.invalidate(viommu, [[0x30n, 0n]]).result).toBe('OK');
    expect(host.dmesg).toHaveLength(5);
  });

  it('gets 63 commands and a CMD_SYNC at a time', () => {
    const { vm, viommu, smmu } = running();
    const before = smmu.commands.issued;
    const commands = Array.from({ length: 200 }, (_, i) =>
      i === 100 ? ([0x46n, 0n] as const) : ([0x30n, 0n] as const),
    );
    expect(vm.invalidate(viommu, commands)).toEqual({ result: 'EIO', done: 100 });
    expect(smmu.commands.issued - before).toBe(63);
  });
});
