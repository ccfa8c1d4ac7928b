import { describe, expect, it } from 'vitest';
import {
  describeIds,
  GUEST_DEFAULT,
  identify,
  IdentificationError,
  QEMU_LIKE,
  type IdFields,
  type QemuProperties,
} from '../../src/smmu/identification.ts';
import { Device } from '../support/smmu-device.ts';

/** The reasons why a set is refused. */
function problems(fields: IdFields, properties: QemuProperties = {}, base = QEMU_LIKE): readonly string[] {
  try {
    identify(base, fields, properties);
  } catch (error) {
    if (error instanceof IdentificationError) return error.problems;
    throw error;
  }
  return [];
}

describe('an inconsistent set is refused with its reason', () => {
  it.each<[string, IdFields, RegExp]>([
    ['PRI without ATS', { PRI: 1 }, /PRI needs ATS/],
    ['PRI queue without PRI', { PRIQS: 4 }, /PRIQS needs PRI/],
    ['many StreamIDs with linear tables', { ST_LEVEL: 0 }, /two-level/],
    ['seven StreamID bits with linear tables', { ST_LEVEL: 0, SIDSIZE: 7 }, /two-level/],
    ['33 StreamID bits', { SIDSIZE: 33 }, /SIDSIZE is 0\.\.32, not 33/],
    ['21 SubstreamID bits', { SSIDSIZE: 21 }, /SSIDSIZE is 0\.\.20, not 21/],
    ['SubstreamIDs without stage 1', { S1P: 0, SSIDSIZE: 4 }, /SSIDSIZE needs S1P/],
    ['queues of 2^20', { CMDQS: 20 }, /0\.\.19/],
    ['no stage', { S1P: 0, S2P: 0 }, /at least one stage/],
    ['HYP without stage 2', { HYP: 1, S2P: 0 }, /HYP needs/],
    ['NS1ATS without ATS', { NS1ATS: 1 }, /NS1ATS needs ATS, S1P and S2P/],
    ['NS1ATS without stage 2', { NS1ATS: 1, ATS: 1, S2P: 0 }, /NS1ATS needs/],
    ['ATSRECERR without ATS', { ATSRECERR: 1 }, /ATSRECERR needs ATS/],
    ['PPS without PASIDs', { PPS: 1, ATS: 1, PRI: 1 }, /PPS needs PRI and SSIDSIZE/],
    ['a reserved stall model', { STALL_MODEL: 3 }, /reserved/],
    ['stalls without a number of them', { STALL_MODEL: 0 }, /STALL_MAX/],
    ['a number of stalls without stalls', { STALL_MAX: 8 }, /STALL_MAX needs/],
    ['no granule', { GRAN4K: 0, GRAN16K: 0, GRAN64K: 0 }, /At least one of GRAN4K/],
    ['a field too large', { OAS: 8 }, /IDR5\.OAS holds 0\.\.7, not 8/],
    ['a field that is not a number', { OAS: Number.NaN }, /not NaN/],
    ['a negative field', { OAS: -1 }, /not -1/],
    ['56-bit addresses', { OAS: 7 }, /56 bits/],
    ['v3.2 without RIL', { ArchMinorRev: 2, RIL: 0, FWB: 1, HYP: 1 }, /v3\.2 must have RIL/],
    ['v3.2 without FWB', { ArchMinorRev: 2, HYP: 1 }, /FWB/],
    ['v3.1 without HAD', { HAD: 0 }, /HAD/],
    ['v3.1 without XNX', { XNX: 0 }, /XNX/],
    ['HAD without stage 1 (6.3.4)', { S1P: 0 }, /HAD needs S1P/],
    ['XNX in v3.0 (6.3.4)', { ArchMinorRev: 0 }, /XNX needs AIDR 1/],
    [
      'DS with 64 KB pages alone (6.3.6)',
      { OAS: 6, DS: 1, VAX: 1, GRAN4K: 0, GRAN16K: 0 },
      /DS needs GRAN4K or GRAN16K/,
    ],
    ['DS without 52-bit VAs (6.3.6)', { OAS: 6, DS: 1 }, /DS needs VAX 1/],
    ['52-bit PAs that no table can hold (6.3.6)', { OAS: 6, GRAN64K: 0 }, /OAS 6 needs GRAN64K or DS/],
    ['52-bit VAs that no table can hold (6.3.6)', { VAX: 1, GRAN64K: 0 }, /VAX 1 needs GRAN64K or DS/],
    ['AArch32 tables', { TTF: 3 }, /AArch64 tables only/],
    ['a reserved endianness', { TTENDIAN: 1 }, /TTENDIAN 1 is reserved/],
    ['ATOS', { ATOS: 1 }, /does not have it/],
    ['preset queues', { QUEUES_PRESET: 1 }, /does not have it/],
  ])('%s', (_title, fields, reason) => {
    expect(problems(fields).join('\n')).toMatch(reason);
  });

  it('an unknown field is named', () => {
    expect(problems({ RILL: 1 } as IdFields).join()).toMatch(/no ID field "RILL"/);
  });

  it('names every reason at once, and says what it is about', () => {
    expect(problems({ PRI: 1, OAS: 9, SIDSIZE: 40 }).length).toBe(3);
    expect(() => identify(QEMU_LIKE, { PRI: 1 })).toThrow(/do not fit together.*PRI needs ATS/);
  });

  it('refuses raw registers with reserved bits', () => {
    expect(() => identify({ ...QEMU_LIKE, IDR3: 0x8000_1414 })).toThrow(/IDR3 has reserved bits/);
  });

  it('refuses an output address size that is not one', () => {
    expect(problems({}, { oas: 45 }).join()).toMatch(/oas is one of 32, 36, 40, 42, 44, 48, 52, 56, not 45/);
  });
});

describe('a consistent set is accepted', () => {
  it.each<[string, IdFields]>([
    ['52-bit VAs with 4 KB pages and 48-bit PAs (6.3.6)', { OAS: 5, DS: 1, VAX: 1, GRAN64K: 0 }],
    ['52-bit VAs with 44-bit PAs (6.3.6)', { VAX: 1 }],
    ['a stage 2 SMMU', { S1P: 0, HAD: 0 }],
    ['v3.0 without what came later', { ArchMinorRev: 0, XNX: 0, HAD: 0 }],
  ])('%s', (_title, fields) => {
    expect(problems(fields)).toEqual([]);
  });
});

describe('the presets', () => {
  it('are consistent', () => {
    expect(identify(QEMU_LIKE)).toEqual(QEMU_LIKE);
    expect(identify(GUEST_DEFAULT)).toEqual(GUEST_DEFAULT);
  });

  it('QEMU_LIKE says what the conformance vectors assume', () => {
    expect(describeIds(QEMU_LIKE)).toMatchObject({
      S1P: 1,
      S2P: 1,
      TTF: 2,
      COHACC: 1,
      ASID16: 1,
      VMID16: 1,
      TTENDIAN: 2,
      STALL_MODEL: 1,
      TERM_MODEL: 1,
      ST_LEVEL: 1,
      SIDSIZE: 16,
      SSIDSIZE: 0,
      CMDQS: 19,
      EVENTQS: 19,
      HAD: 1,
      XNX: 1,
      RIL: 1,
      BBML: 2,
      OAS: 4,
      GRAN4K: 1,
      GRAN16K: 1,
      GRAN64K: 1,
      ArchMinorRev: 1,
      HTTU: 0,
      HYP: 0,
      ATS: 0,
      PRI: 0,
      MSI: 0,
      SEV: 0,
    });
  });

  it('GUEST_DEFAULT passes what the Linux driver insists on at probe', () => {
    const ids = describeIds(GUEST_DEFAULT);
    expect([0, 2]).toContain(ids.TTENDIAN);
    expect(ids.S1P | ids.S2P).toBe(1);
    expect(ids.TTF & 2).toBe(2);
    expect(ids.TABLES_PRESET | ids.QUEUES_PRESET | ids.REL).toBe(0);
    expect(ids.CMDQS).toBeGreaterThan(6);
  });
});

describe("QEMU's property names", () => {
  it('choose the fields that they stand for', () => {
    expect(
      describeIds(identify(QEMU_LIKE, {}, { accel: true, ril: false, ats: true, oas: 48, ssidsize: 8 })),
    ).toMatchObject({ RIL: 0, ATS: 1, OAS: 5, SSIDSIZE: 8 });
    expect(describeIds(identify(QEMU_LIKE, {}, { stage: '1' }))).toMatchObject({ S1P: 1, S2P: 0 });
    expect(describeIds(identify(QEMU_LIKE, {}, { stage: '2' }))).toMatchObject({ S1P: 0, S2P: 1, HAD: 0 });
    expect(describeIds(identify(GUEST_DEFAULT, { XNX: 1 }, { stage: 'nested' }))).toMatchObject({
      S1P: 1,
      S2P: 1,
    });
  });

  it('leave alone what is not given', () => {
    expect(identify(QEMU_LIKE, {}, { accel: true })).toEqual(QEMU_LIKE);
  });
});

describe('the ID registers of an SMMU', () => {
  const OTHER = identify(QEMU_LIKE, { OAS: 0, SIDSIZE: 5, ST_LEVEL: 0 });

  it.each([
    ['a read', (device: Device) => void device.read(0x20)],
    ['a write', (device: Device) => device.write(0x20, 0)],
  ])('cannot change any more after %s of software', (_, access) => {
    const device = new Device();
    access(device);
    expect(device.smmu.identified).toBe(true);
    expect(() => device.smmu.identify(OTHER)).toThrow('already');
  });
  it('can change before, and all that depends on them does', () => {
    const device = new Device();
    device.smmu.identify(OTHER);
    expect(device.smmu.ids).toBe(OTHER);
    expect([device.read(0), device.read(4), device.read(0x14)]).toEqual([OTHER.IDR0, OTHER.IDR1, OTHER.IDR5]);
    device.start(0xd);
    device.submit([0x03, 32, 1, 0], [0x03, 31, 1, 0]);
    expect(device.backend).not.toContain('streams 32..32');
    expect(device.backend).toContain('streams 31..31');
  });
  it('can change for the last time in the first access itself', () => {
    const device: Device = new Device(QEMU_LIKE, { settled: () => device.smmu.identify(OTHER) });
    expect(device.read(4)).toBe(OTHER.IDR1);
    expect(() => device.smmu.identify(QEMU_LIKE)).toThrow('already');
  });
  it('stay over a reset', () => {
    const device = new Device();
    device.smmu.identify(OTHER);
    device.smmu.reset();
    expect(device.read(0)).toBe(OTHER.IDR0);
    device.smmu.reset();
    expect(() => device.smmu.identify(QEMU_LIKE)).toThrow('already');
  });
});
