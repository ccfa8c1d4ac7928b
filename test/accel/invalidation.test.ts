import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import { INVALIDATE, type CommandBatch } from '../../src/smmu/ports.ts';
import { Bench, GUEST_IDS } from '../support/accelerated.ts';
import { ABORT_STE, BYPASS_STE, s1Ste } from '../support/scripted-guest.ts';

type Words = readonly [number, number, number, number];
const NH_ALL: Words = [0x10, 0, 0, 0];
const NH_VA: Words = [0x12, 0x5_0000, 0x1000_0001, 0];
const NH_ASID: Words = [0x11, 0x5_0000, 0, 0];
const cfgiCd = (sid: number): Words => [0x05, sid, 1, 0];
const cfgiCdAll = (sid: number): Words => [0x06, sid, 0, 0];
const atcInv = (sid: number): Words => [0x40, sid, 0x34, 0];

const batch = (...commands: Words[]): CommandBatch => ({
  words: Uint32Array.from(commands.flat()),
  count: commands.length,
});

/** Two devices that translate, on a host with ATS. */
function bench(): Bench {
  const made = new Bench({ ids: { ...GUEST_IDS, IDR0: GUEST_IDS.IDR0 | (1 << 10) } });
  made.host.info[0] |= 1 << 10;
  made.host.capabilities = 0n;
  const ste = (address: number): number[] =>
    s1Ste(address).map((word, i) => (i === 2 ? word | (1 << 28) : word));
  made.guest.stes.set(8, ste(0x5000)).set(9, ste(0x9000));
  made.guest.setSmmuen(true);
  made.plug(0);
  made.plug(1);
  made.host.takeCalls();
  made.host.invalidated.length = 0;
  return made;
}

/** Fails the nth HWPT_INVALIDATE with this errno, for each nth given. */
function failing(made: Bench, errnos: readonly number[]): void {
  let nth = 0;
  made.host.failing = (name) => (name === 'IOMMU_HWPT_INVALIDATE' ? (errnos[nth++] ?? 0) : 0);
}

describe('a batch', () => {
  it('gap 11: is one call', () => {
    const made = bench();
    const many = batch(...Array.from({ length: 200 }, () => NH_VA), cfgiCd(8), atcInv(9));
    expect(made.accelerator.invalidate(many)).toBe(INVALIDATE.Complete);
    expect(made.host.takeCalls()).toEqual(['IOMMU_HWPT_INVALIDATE']);
    expect(made.host.invalidated).toHaveLength(202);
    expect(made.host.invalidated.slice(-2)).toEqual(['5:8', '40:9']);
  });
  it('longer than the buffer is several calls, in order', () => {
    const made = bench();
    const many = batch(...Array.from({ length: 1030 }, () => NH_VA), NH_ASID);
    expect(made.accelerator.invalidate(many)).toBe(INVALIDATE.Complete);
    expect(made.host.takeCalls()).toHaveLength(2);
    expect(made.host.invalidated).toHaveLength(1031);
    expect(made.host.invalidated.at(-1)).toBe('11');
  });
  it('gap 14: leaves out StreamIDs that the host does not know', () => {
    const made = bench();
    expect(made.accelerator.invalidate(batch(cfgiCd(77), NH_VA, atcInv(77), cfgiCdAll(9)))).toBe(
      INVALIDATE.Complete,
    );
    expect(made.host.invalidated).toEqual(['12', '6:9']);
    expect(made.host.complaints).toEqual([]);
  });
  it('of which nothing is left costs nothing', () => {
    const made = bench();
    expect(made.accelerator.invalidate(batch(cfgiCd(77), [0x03, 8, 1, 0], [0x46, 0, 0, 0]))).toBe(
      INVALIDATE.Complete,
    );
    expect(made.host.takeCalls()).toEqual([]);
  });
  it('without a device costs nothing', () => {
    const made = new Bench();
    expect(made.accelerator.invalidate(batch(NH_ALL))).toBe(INVALIDATE.Complete);
    expect(made.host.takeCalls()).toEqual([]);
  });
  it('has CFGI_CD only for streams that translate: no other has a context descriptor', () => {
    const made = bench();
    made.guest.setSte(8, ABORT_STE);
    made.host.invalidated.length = 0;
    made.accelerator.invalidate(batch(cfgiCd(8), cfgiCd(9)));
    expect(made.host.invalidated).toEqual(['5:9']);
  });
  it.each([
    ['translates with EATS=1', undefined, ['40:8']],
    ['translates with EATS=0', s1Ste(0x5000), []],
    ['bypasses: the kernel enables ATS for it', BYPASS_STE, ['40:8']],
    ['aborts', ABORT_STE, []],
  ])('has ATC_INV only for devices that may cache: %s', (_what, ste, sent) => {
    const made = bench();
    if (ste !== undefined) made.guest.setSte(8, ste);
    made.host.invalidated.length = 0;
    made.accelerator.invalidate(batch(atcInv(8)));
    expect(made.host.invalidated).toEqual(sent);
  });
  it('gap 17: goes twice to hardware that may forget it', () => {
    const made = new Bench();
    made.host.infoFlags = 1;
    made.plug();
    made.host.invalidated.length = 0;
    made.accelerator.invalidate(batch(NH_VA));
    expect(made.host.invalidated).toEqual(['12', '12']);
  });
});

describe('gap 13 and 15: a batch that the host does not carry out', () => {
  it.each([ERRNO.EIO, ERRNO.ENOMEM, ERRNO.EFAULT, ERRNO.ETIMEDOUT])(
    'errno %i is followed by something as wide or wider, whatever entry the kernel names',
    (errno) => {
      const made = bench();
      failing(made, [errno]);
      expect(made.accelerator.invalidate(batch(NH_VA, cfgiCd(8)))).toBe(INVALIDATE.Complete);
      const all = made.host.invalidated;
      expect(errno === ERRNO.EIO ? all.slice(0, 3) : all.slice(0, 2)).toEqual(
        errno === ERRNO.EIO ? ['10', '6:8', '6:9'] : ['12', '5:8'],
      );
      expect(made.host.device(0).history).toEqual(['translate 5000']);
    },
  );
  it('gap 15: of 70 commands with one that is refused, those that the kernel counts as done but held back are done', () => {
    const made = bench();
    const commands = Array.from({ length: 70 }, () => NH_VA);
    failing(made, [ERRNO.EIO]);
    expect(made.accelerator.invalidate(batch(...commands))).toBe(INVALIDATE.Complete);
    expect(made.host.invalidated).toEqual(['10', '6:8', '6:9']);
  });
  it('twice in a row invalidates everything', () => {
    const made = bench();
    failing(made, [ERRNO.ENOMEM, ERRNO.ENOMEM]);
    expect(made.accelerator.invalidate(batch(NH_VA))).toBe(INVALIDATE.Complete);
    expect(made.host.invalidated).toEqual(['10', '6:8', '6:9']);
    expect(made.accelerator.state.invalidations).toMatchObject({ failed: 1, resynced: 1, abandoned: 0 });
  });
  it('even then takes every stream off its translation, flushes, and gives it back', () => {
    const made = bench();
    failing(made, [ERRNO.ENOMEM, ERRNO.ENOMEM, ERRNO.ENOMEM]);
    expect(made.accelerator.invalidate(batch(NH_VA))).toBe(INVALIDATE.Complete);
    expect(made.host.device(0).history).toEqual(['translate 5000', 'abort', 'translate 5000']);
    expect(made.host.device(1).history).toEqual(['translate 9000', 'abort', 'translate 9000']);
    expect(made.host.invalidated).toEqual(['30', '6:8', '6:9']);
    made.expectSettled(2);
  });
  it('for ever aborts every stream, and the batch is complete: nobody can use what is stale', () => {
    const made = bench();
    made.host.failing = (name) => (name === 'IOMMU_HWPT_INVALIDATE' ? ERRNO.EIO : 0);
    expect(made.accelerator.invalidate(batch(NH_VA))).toBe(INVALIDATE.Complete);
    expect([made.host.attached(0), made.host.attached(1)]).toEqual(['abort', 'abort']);
    made.host.takeCalls();
    expect(made.accelerator.invalidate(batch(NH_VA))).toBe(INVALIDATE.Complete);
    expect(made.host.takeCalls()).toEqual([]);
    made.guest.cfgiAll();
    expect(made.host.attached(0)).toBe('abort');
    made.host.failing = () => 0;
    made.guest.cfgiAll();
    expect([made.host.attached(0), made.host.attached(1)]).toEqual(['translate 5000', 'translate 9000']);
    made.expectSettled(2);
  });
});

describe('gap 13: an endpoint that does not answer', () => {
  it('is the error of the CMD_SYNC, and everything else is complete', () => {
    const made = bench();
    failing(made, [ERRNO.ETIMEDOUT, 0, ERRNO.ETIMEDOUT]);
    expect(made.accelerator.invalidate(batch(NH_VA, cfgiCd(8), atcInv(9)))).toBe(INVALIDATE.AtcInvTimeout);
    expect(made.host.invalidated).toEqual(['12', '5:8']);
    expect(made.accelerator.state.invalidations.atcTimeouts).toBe(1);
  });
  it('and answers the second time is no error', () => {
    const made = bench();
    failing(made, [ERRNO.ETIMEDOUT]);
    expect(made.accelerator.invalidate(batch(NH_VA, atcInv(9)))).toBe(INVALIDATE.Complete);
    expect(made.host.invalidated).toEqual(['12', '40:9']);
  });
  it('for another reason loses its translation for a moment, in which the kernel empties its cache', () => {
    const made = bench();
    failing(made, [ERRNO.EIO, 0, ERRNO.EIO]);
    expect(made.accelerator.invalidate(batch(NH_VA, atcInv(9)))).toBe(INVALIDATE.Complete);
    expect(made.host.device(1).history).toEqual(['translate 9000', 'abort', 'translate 9000']);
    made.expectSettled(2);
  });
});
