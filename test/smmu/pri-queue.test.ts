import { describe, expect, it } from 'vitest';
import { identify, QEMU_LIKE, type IdFields } from '../../src/smmu/identification.ts';
import { PAGE_REQUEST, PageRequest } from '../../src/smmu/page-request.ts';
import { Device, NOWHERE, RAM } from '../support/smmu-device.ts';

const PRIQ = RAM + 0x4000;
const STRTAB = RAM + 0x8000;
const PROD = 0x1_00c8;
const CONS = 0x1_00cc;
const OVFLG = 0x8000_0000;
const PRIQ_ABT_ERR = 1 << 3;
const SUCCESS = 2;
const FAILURE = 0;

const IDS: IdFields = { ATS: 1, PRI: 1, PRIQS: 4, SSIDSIZE: 8, CD2L: 1, ATSRECERR: 1, MSI: 1 };

/** A device with a PRI queue of two entries and a linear stream table of two STEs that are zero. */
class PriDevice extends Device {
  /** `<sid>[.<ssid>] <group> <response>` of each answer. */
  readonly answers: string[] = [];

  constructor(fields: IdFields = {}, { base = PRIQ, log2 = 1, lastOnly = false } = {}) {
    super(identify(QEMU_LIKE, { ...IDS, ...fields }), {
      responses: {
        respond: (sid, ssv, ssid, group, response) =>
          void this.answers.push(`${sid}${ssv ? `.${ssid}` : ''} ${group} ${response}`),
      },
    });
    this.write64(0xc0, 0, base | log2);
    this.write64(0x80, 0, STRTAB);
    this.write(0x88, 1);
    this.write(0x2c, 0xa);
    if (lastOnly) this.write(0xdc, 0x8000_0000);
    this.write(0x50, 7);
    this.start(0b1111);
    this.interrupts.length = 0;
  }

  ask(fields: Partial<PageRequest> = {}): number {
    return this.smmu.pageRequest(
      Object.assign(new PageRequest(), { sid: 1, prgIndex: 5, read: true, ...fields }),
    );
  }

  /** A valid STE that aborts, for StreamID `sid`, with PPAR or without. */
  ste(sid: number, PPAR: number): void {
    const at = (STRTAB - RAM) / 4 + sid * 16;
    this.ram[at] = 1;
    this.ram[at + 2] = PPAR << 18;
  }

  entry(slot: number): number[] {
    const at = (PRIQ - RAM) / 4 + slot * 4;
    return [...this.ram.subarray(at, at + 4)];
  }

  /** Fills the queue and takes note of nothing. */
  fill(): this {
    this.ask();
    this.ask();
    this.interrupts.length = 0;
    return this;
  }
}

const MARKER = { ssv: true, ssid: 3, last: true, read: false };

describe('a page request is not taken', () => {
  it('without IDR0.PRI; nobody answers', () => {
    const device = new PriDevice({ PRI: 0, PRIQS: 0, ATS: 0, ATSRECERR: 0 });
    expect(device.ask({ last: true })).toBe(PAGE_REQUEST.Unsupported);
    expect(device.answers).toEqual([]);
    expect(device.read(PROD)).toBe(0);
  });

  it.each([
    ['PRIQEN=0', 0b1101],
    ['SMMUEN=0, which makes PRIQEN ineffective', 0b1110],
  ])('with %s: each is answered with a failure, without its PASID', (_what, cr0) => {
    const device = new PriDevice();
    device.write(0x20, cr0);
    expect(device.ask()).toBe(PAGE_REQUEST.Discarded);
    expect(device.ask({ last: true, ssv: true, ssid: 7, prgIndex: 6 })).toBe(PAGE_REQUEST.Discarded);
    expect(device.answers).toEqual([`1 5 ${FAILURE}`, `1 6 ${FAILURE}`]);
    expect(device.read(PROD)).toBe(0);
    expect(device.interrupts).toEqual([]);
  });

  it('where the queue cannot be written: PRIQ_ABT_ERR, PROD stays, the request is answered with a failure', () => {
    const device = new PriDevice({}, { base: NOWHERE });
    expect(device.ask({ ssv: true, ssid: 7 })).toBe(PAGE_REQUEST.Discarded);
    expect(device.errors).toBe(PRIQ_ABT_ERR);
    expect(device.read(PROD)).toBe(0);
    expect(device.answers).toEqual([`1 5 ${FAILURE}`]);
    expect(device.interrupts).toEqual(['gerror']);
  });

  it('while PRIQ_ABT_ERR is not acknowledged, also where there is memory again', () => {
    const device = new PriDevice({}, { base: NOWHERE });
    device.ask();
    device.write(0x20, 0b1101);
    device.write64(0xc0, 0, PRIQ | 1);
    device.write(0x20, 0b1111);
    expect(device.ask({ last: true })).toBe(PAGE_REQUEST.Discarded);
    expect(device.answers).toHaveLength(2);
    device.write(0x64, PRIQ_ABT_ERR);
    expect(device.ask()).toBe(PAGE_REQUEST.Queued);
    expect(device.answers).toHaveLength(2);
  });

  it('with inconsistent pointers: they count as full', () => {
    const device = new PriDevice();
    device.write(CONS, 1);
    expect(device.ask()).toBe(PAGE_REQUEST.Discarded);
    expect(device.read(PROD)).toBe(OVFLG);
  });
});

describe('a Stop Marker', () => {
  it('is never answered', () => {
    const device = new PriDevice().fill();
    device.ask(MARKER);
    device.ask(MARKER);
    device.write(0x20, 0b1101);
    device.ask(MARKER);
    const elsewhere = new PriDevice({}, { base: NOWHERE });
    elsewhere.ask(MARKER);
    expect([device.answers, elsewhere.answers]).toEqual([[], []]);
  });

  it('is recorded like a request', () => {
    const device = new PriDevice();
    expect(device.ask(MARKER)).toBe(PAGE_REQUEST.Queued);
    expect(device.entry(0)).toEqual([1, 0xc000_0003, 5, 0]);
  });

  it.each([
    ['the message has no PASID', {}, false],
    ['the SMMU has no SubstreamIDs', { SSIDSIZE: 0, CD2L: 0 }, true],
  ])('is none if %s: it is a request then, and answered', (_what, fields, ssv) => {
    const device = new PriDevice(fields).fill();
    device.ask({ ...MARKER, ssv });
    expect(device.answers).toEqual([`1 5 ${SUCCESS}`]);
  });
});

describe('an overflow', () => {
  it('toggles OVFLG once, discards, and lets PROD stand', () => {
    const device = new PriDevice().fill();
    expect(device.read(PROD)).toBe(2);
    expect(device.ask()).toBe(PAGE_REQUEST.Discarded);
    expect(device.ask()).toBe(PAGE_REQUEST.Discarded);
    expect(device.read(PROD)).toBe((OVFLG | 2) >>> 0);
    expect(device.errors).toBe(0);
  });

  it('keeps requests out until it is acknowledged, even where there is room', () => {
    const device = new PriDevice().fill();
    device.ask();
    device.write(CONS, 2);
    expect(device.ask()).toBe(PAGE_REQUEST.Discarded);
    expect(device.read(PROD)).toBe((OVFLG | 2) >>> 0);
    device.write(CONS, (OVFLG | 2) >>> 0);
    expect(device.ask()).toBe(PAGE_REQUEST.Queued);
    expect(device.read(PROD)).toBe((OVFLG | 3) >>> 0);
  });

  it('toggles OVFLG back at the next one', () => {
    const device = new PriDevice().fill();
    device.ask();
    device.write(CONS, (OVFLG | 0) >>> 0);
    device.ask();
    expect(device.read(PROD)).toBe(2);
  });

  it('is no interrupt by itself', () => {
    const device = new PriDevice().fill();
    device.ask({ last: true });
    expect(device.interrupts).toEqual([]);
  });

  it('is silent for requests that are not the last of their group', () => {
    const device = new PriDevice().fill();
    device.ask();
    device.ask({ ssv: true, ssid: 7 });
    expect(device.answers).toEqual([]);
  });

  it('answers the last request of a group with success, the one that caused it included', () => {
    const device = new PriDevice().fill();
    device.ask({ last: true });
    device.ask({ last: true, sid: 0x1_0000, prgIndex: 511 });
    expect(device.answers).toEqual([`1 5 ${SUCCESS}`, `65536 511 ${SUCCESS}`]);
  });

  it.each([
    ['PPS=1: success with the PASID, whatever the STE', { PPS: 1 }, undefined, `1.7 5 ${SUCCESS}`],
    ['a valid STE with PPAR=1: success with the PASID', {}, 1, `1.7 5 ${SUCCESS}`],
    ['a valid STE with PPAR=0: success without the PASID', {}, 0, `1 5 ${SUCCESS}`],
    ['no valid STE: failure without the PASID', {}, undefined, `1 5 ${FAILURE}`],
    ['no SubstreamIDs: success without a PASID', { SSIDSIZE: 0, CD2L: 0 }, undefined, `1 5 ${SUCCESS}`],
  ])('answers a request with a PASID: %s', (_what, fields, PPAR, answer) => {
    const device = new PriDevice(fields).fill();
    if (PPAR !== undefined) device.ste(1, PPAR);
    device.ask({ last: true, ssv: true, ssid: 7 });
    expect(device.answers).toEqual([answer]);
  });

  it.each([
    ['C_BAD_STE', 1, 0xa, STRTAB, 0x04],
    ['C_BAD_STREAMID', 2, 0xa, STRTAB, 0x02],
    ['no C_BAD_STREAMID with RECINVSID=0', 2, 0x8, STRTAB, undefined],
    ['F_STE_FETCH', 1, 0xa, NOWHERE, 0x03],
    ['nothing with REC_CFG_ATS=0', 1, 0x2, STRTAB, undefined],
  ])('records %s where the STE cannot be had for PPAR', (_what, sid, cr2, strtab, type) => {
    const device = new PriDevice().fill();
    device.write(0x20, 0);
    device.write(0x2c, cr2);
    device.write64(0x80, 0, strtab);
    device.write(0x20, 0b1111);
    device.ask({ sid, last: true, ssv: true, ssid: 7 });
    expect(device.answers).toEqual([`${sid} 5 ${FAILURE}`]);
    const seen = device.read(0x1_00a8) === 0 ? undefined : device.event(0) & 0xff;
    expect(seen).toBe(type);
    if (type === undefined) return;
    expect([device.event(0), device.event(0, 1)]).toEqual([type | (1 << 11) | (7 << 12), sid]);
    if (type === 0x03) expect(device.event(0, 6)).toBe(NOWHERE + 64 * sid);
  });
});

describe('a page request', () => {
  it('becomes an entry: without a PASID its SubstreamID, X and Priv are 0', () => {
    const device = new PriDevice();
    const wanted = {
      sid: 0xfedc_ba98,
      ssid: 0xa_bcde,
      addrHi: 0xffff_8000,
      addrLo: 0x1234_5fff,
      prgIndex: 0x1ff,
      write: true,
      execute: true,
      privileged: true,
      last: true,
    };
    expect(device.ask(wanted)).toBe(PAGE_REQUEST.Queued);
    expect(device.ask({ ...wanted, ssv: true })).toBe(PAGE_REQUEST.Queued);
    expect(device.entry(0)).toEqual([0xfedc_ba98, 0x7000_0000, 0x1234_51ff, 0xffff_8000]);
    expect(device.entry(1)).toEqual([0xfedc_ba98, 0xfc0a_bcde, 0x1234_51ff, 0xffff_8000]);
    expect(device.answers).toEqual([]);
  });

  it('goes round: the wrap flag of PROD follows the index', () => {
    const device = new PriDevice();
    for (let n = 1; n <= 8; n++) {
      expect(device.ask({ prgIndex: n })).toBe(PAGE_REQUEST.Queued);
      expect(device.read(PROD)).toBe(n & 3);
      expect(device.entry((n - 1) & 1)[2]).toBe(n);
      device.write(CONS, n & 3);
    }
  });

  it('takes a queue that is aligned to its size, capped by IDR1.PRIQS', () => {
    const device = new PriDevice({ PRIQS: 3 }, { base: PRIQ + 0x60, log2: 19 });
    device.ask({ prgIndex: 9 });
    expect(device.entry(0)[2]).toBe(9);
    for (let n = 0; n < 8; n++) device.ask();
    expect(device.read(PROD)).toBe((OVFLG | 8) >>> 0);
  });

  it('is answered by CMD_PRI_RESP', () => {
    const device = new PriDevice();
    device.ask({ last: true, ssv: true, ssid: 7 });
    device.submit([0x41 | (1 << 11) | (7 << 12), 1, 5 | (SUCCESS << 12), 0]);
    expect(device.answers).toEqual([`1.7 5 ${SUCCESS}`]);
  });
});

describe('the PRI queue interrupt', () => {
  it('is for the step from empty to non-empty with LO=0', () => {
    const device = new PriDevice();
    device.ask();
    device.ask({ last: true });
    expect(device.interrupts).toEqual(['priq']);
  });

  it('is for each last request that is written or lost to an overflow with LO=1, and for nothing else', () => {
    const device = new PriDevice({}, { lastOnly: true });
    device.ask();
    expect(device.interrupts).toEqual([]);
    device.ask({ last: true });
    expect(device.interrupts).toEqual(['priq']);
    device.ask();
    expect(device.interrupts).toEqual(['priq']);
    device.ask({ last: true });
    expect(device.interrupts).toEqual(['priq', 'priq']);
    device.write(0x20, 0b1101);
    device.ask({ last: true });
    expect(device.interrupts).toEqual(['priq', 'priq']);
  });

  it('keeps to IRQ_CTRL.PRIQ_IRQEN', () => {
    const device = new PriDevice();
    device.write(0x50, 5);
    device.ask();
    expect(device.interrupts).toEqual([]);
  });

  it('comes after the entry and PROD are there', () => {
    const device = new PriDevice();
    let seen: unknown;
    device.onInterrupt = () => (seen = [device.read(PROD), device.entry(0)[0]]);
    device.ask();
    expect(seen).toEqual([1, 1]);
  });
});

it('reset empties the queue and takes OVFLG back', () => {
  const device = new PriDevice().fill();
  device.ask();
  device.smmu.reset();
  expect([device.read(PROD), device.read(CONS)]).toEqual([0, 0]);
});
