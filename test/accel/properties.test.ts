import { describe, expect, it } from 'vitest';
import { Identity, type SmmuProperties } from '../../src/accel/properties.ts';
import type { HostInfo } from '../../src/iommufd/host-info.ts';
import { HostError } from '../../src/iommufd/errors.ts';
import { Machine } from '../../src/machine/machine.ts';
import { Memory } from '../../src/memory/memory.ts';
import { Scheduler } from '../../src/machine/scheduler.ts';
import { DmaTester } from '../../src/host/sim/functions/dma-tester.ts';
import { LAB_SMMU, SERVER_SMMU } from '../../src/host/sim/profiles.ts';
import { SimHost } from '../../src/host/sim/sim-host.ts';
import { describeIds, GUEST_DEFAULT, type IdRegisters } from '../../src/smmu/identification.ts';

/** IDR0..5 as Linux 7.3.4 reported them for QEMU's SMMU: 44 bits, RIL, no ATS, no substreams. */
const LAB = [0x0d44_101b, 0x0273_0010, 0, 0x1414, 0, 0x74];
const host = (changes: Partial<HostInfo> & { idr?: readonly number[] } = {}): HostInfo => ({
  idr: LAB,
  IIDR: 0,
  AIDR: 1,
  ats: false,
  maxPasidLog2: 0,
  repeatTlbiCfgi: false,
  ...changes,
});
/** 48 bits, RIL, ATS, 20 bits of SubstreamID, two-level CDs. */
const SERVER = host({
  idr: [0x0dcc_3fdb, (20 << 6) | 22 | (19 << 16) | (19 << 21), 0, 0x1414, 0, 0x75],
  ats: true,
});
const values = (identity: Identity): Record<string, unknown> =>
  Object.fromEntries(identity.resolved.properties.map(({ property, value }) => [property, value]));
/** What nobody asked for. */
const NO_FAULTS = { stall: 'off', pri: 'off' };
const AUTO: SmmuProperties = { ril: 'auto', ats: 'auto', oas: 'auto', ssidsize: 'auto' };

describe('properties that make no SMMU are refused at once', () => {
  it.each<[SmmuProperties, string]>([
    [{ oas: 43 }, 'oas is one of'],
    [{ oas: 56 }, 'OAS must be 0..6'],
    [{ ssidsize: 21 }, 'SSIDSIZE is 0..20'],
  ])('%o', (properties, message) => {
    expect(() => new Identity(GUEST_DEFAULT, properties)).toThrow(message);
  });
});

describe('what was asked for', () => {
  it.each<[SmmuProperties, string]>([
    [{ ril: 'on' }, 'ril=on was asked for'],
    [{ ats: 'on' }, 'ats=on was asked for'],
    [{ oas: 48 }, 'oas=48 was asked for, but IDR5.OAS can be no more than 4 (44 bits)'],
    [{ ssidsize: 4 }, 'ssidsize=4 was asked for'],
  ])('and the host does not have is refused, and nothing changes: %o', (properties, message) => {
    const poor = host({ idr: LAB.map((word, i) => (i === 3 ? 0x1004 : word)) });
    const identity = new Identity(GUEST_DEFAULT, properties);
    const before = identity.resolved;
    expect(() => identity.fit(poor)).toThrow(HostError);
    expect(() => identity.fit(poor)).toThrow(message);
    expect(identity.resolved).toBe(before);
  });
  it('is there, whether the host has more or not', () => {
    const identity = new Identity(GUEST_DEFAULT, { ril: 'off', ats: 'on', oas: 40, ssidsize: 8 });
    identity.adopt(identity.fit(SERVER));
    expect(values(identity)).toEqual({ ril: 'off', ats: 'on', oas: 40, ssidsize: 8, ...NO_FAULTS });
    const { properties } = identity.resolved;
    expect(properties.slice(0, 4).every(({ from }) => from === 'asked')).toBe(true);
  });
});

describe('auto', () => {
  it('gap 29: is the host of the first device', () => {
    const identity = new Identity(GUEST_DEFAULT, AUTO);
    identity.adopt(identity.fit(SERVER));
    expect(values(identity)).toEqual({ ril: 'on', ats: 'on', oas: 48, ssidsize: 20, ...NO_FAULTS });
    expect(describeIds(identity.resolved.ids)).toMatchObject({
      RIL: 1,
      ATS: 1,
      OAS: 5,
      SSIDSIZE: 20,
      CD2L: 1,
    });
    expect(identity.resolved.properties.slice(0, 4).every(({ from }) => from === 'host')).toBe(true);
  });
  it('takes ATS from the device too, not from the SMMU alone', () => {
    const identity = new Identity(GUEST_DEFAULT, AUTO);
    identity.adopt(identity.fit({ ...SERVER, ats: false }));
    expect(values(identity)).toMatchObject({ ats: 'off' });
  });
  it('is lowered by a second device on a lesser host, before the guest looks', () => {
    const identity = new Identity(GUEST_DEFAULT, AUTO);
    identity.adopt(identity.fit(SERVER));
    identity.adopt(identity.fit(host()));
    expect(values(identity)).toEqual({ ril: 'on', ats: 'off', oas: 44, ssidsize: 0, ...NO_FAULTS });
    // But not raised by a better one.
    identity.adopt(identity.fit(SERVER));
    expect(values(identity)).toMatchObject({ ats: 'off', oas: 44 });
  });
  it('is the floor if the guest looks before there is a device', () => {
    const identity = new Identity(GUEST_DEFAULT, AUTO);
    expect(values(identity)).toEqual({ ril: 'off', ats: 'off', oas: 44, ssidsize: 0, ...NO_FAULTS });
    identity.settle();
    expect(identity.fit(SERVER)).toBe(identity.resolved);
    expect(identity.resolved.properties[0].from).toBe('floor');
  });
  it('is the floor that its owner declares', () => {
    const identity = new Identity(GUEST_DEFAULT, AUTO, { oas: 40, ril: 'on' });
    expect(values(identity)).toEqual({ ril: 'on', ats: 'off', oas: 40, ssidsize: 0, ...NO_FAULTS });
  });
});

describe('what nobody asked for', () => {
  it('gap 30: is lowered to the host until the guest looks', () => {
    const identity = new Identity(GUEST_DEFAULT);
    identity.adopt(identity.fit(host({ idr: LAB.map((word, i) => (i === 5 ? 0x12 : word)) })));
    expect(identity.resolved.lowered.map(({ field, from, to }) => `${field} ${from} -> ${to}`)).toEqual([
      'IDR5.OAS 4 -> 2',
      'IDR5.GRAN64K 1 -> 0',
    ]);
    expect(identity.resolved.properties.every(({ from }) => from === 'default')).toBe(true);
  });
});

describe('a machine', () => {
  function make(properties: SmmuProperties, smmus: readonly IdRegisters[]): Machine {
    const scheduler = new Scheduler();
    const sim = new SimHost({ schedule: scheduler.post });
    smmus.forEach((ids, i) => {
      const smmu = sim.addSmmu({ name: `${i}.smmu`, ids });
      const path = `/dev/vfio/devices/vfio${i}`;
      sim.addDevice({ path, address: `000${i}:00:01.0`, smmu, sid: 8, ats: true, function: new DmaTester() });
    });
    const machine = new Machine({
      kernel: sim,
      memory: new Memory(),
      ids: GUEST_DEFAULT,
      properties,
      scheduler,
      interrupts: { raise() {}, writeMsi: () => true },
    });
    machine.addRam(0x4000_0000, new Uint8Array(0x10_0000));
    return machine;
  }
  const plug = (machine: Machine, i: number): unknown =>
    machine.plug(`nic${i}`, `/dev/vfio/devices/vfio${i}`, 8);

  it('gap 29: cold: shows the guest what the host of the first device has', () => {
    const machine = make(AUTO, [SERVER_SMMU]);
    plug(machine, 0);
    expect(describeIds(machine.smmu.ids)).toMatchObject({ ATS: 1, SSIDSIZE: 20, OAS: 5 });
    expect(machine.smmu.read(4, 4)).toBe(machine.smmu.ids.IDR1);
  });
  it('gap 29: hot: takes a device after the guest has seen the floor', () => {
    const machine = make(AUTO, [SERVER_SMMU]);
    machine.smmu.read(0, 4);
    const { ids } = machine.smmu;
    plug(machine, 0);
    expect(machine.smmu.ids).toBe(ids);
    expect(machine.state.devices).toHaveLength(1);
  });
  it('hot: refuses a device whose host has less than the guest has seen, with the reason', () => {
    const machine = make({ ats: 'on', ssidsize: 8 }, [LAB_SMMU]);
    machine.smmu.read(0, 4);
    expect(() => plug(machine, 0)).toThrow(/IDR0.ATS=1 must be 0.*IDR1.SSIDSIZE=8 must be 0/);
    expect(machine.state.devices).toEqual([]);
  });
  it('a device that is refused for another reason does not change what the guest will see', () => {
    const machine = make(AUTO, [SERVER_SMMU, LAB_SMMU]);
    plug(machine, 0);
    const { ids } = machine.smmu;
    expect(() => plug(machine, 1)).toThrow('another physical SMMU');
    expect(machine.smmu.ids).toEqual(ids);
    expect(machine.identity.resolved.ids).toEqual(ids);
  });
  it('a guest with substreams and ATS on such a host gets them to the hardware', () => {
    const machine = make(AUTO, [SERVER_SMMU]);
    plug(machine, 0);
    const { smmu } = machine;
    // S1CDMax=4, EATS=1, S1DSS=2.
    machine.memory.store64(0, 0x4000_0200, 0x2000_0000, 0x4001_000b);
    machine.memory.store64(0, 0x4000_0208, 0, (1 << 28) | 2);
    smmu.write(0x80, 8, 0, 0x4000_0000);
    smmu.write(0x88, 4, 0, 4);
    smmu.write(0x20, 4, 0, 1);
    expect(machine.state.devices).toMatchObject([{ attached: 'translate', why: 'STE.Config=S1' }]);
  });
});
