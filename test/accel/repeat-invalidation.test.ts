/** Erratum REPEAT_TLBI_CFGI: hardware that may forget a TLBI or CFGI until it has come twice. */

import { describe, expect, it } from 'vitest';
import { ERRNO } from '../../src/iommufd/uapi/errno.ts';
import { INVALIDATE, type CommandBatch } from '../../src/smmu/ports.ts';
import { Bench, GUEST_IDS } from '../support/accelerated.ts';
import { s1Ste } from '../support/scripted-guest.ts';

type Words = readonly [number, number, number, number];
const NH_VA: Words = [0x12, 0x5_0000, 0x1000_0001, 0];
const cfgiCd = (sid: number): Words => [0x05, sid, 1, 0];
const atcInv = (sid: number): Words => [0x40, sid, 0x34, 0];
const batch = (...commands: Words[]): CommandBatch => ({
  words: Uint32Array.from(commands.flat()),
  count: commands.length,
});

/** A device that translates with ATS, on such hardware. */
function forgetful(): Bench {
  const made = new Bench({ ids: { ...GUEST_IDS, IDR0: GUEST_IDS.IDR0 | (1 << 10) } });
  made.host.info[0] |= 1 << 10;
  made.host.capabilities = 0n;
  made.host.infoFlags = 1;
  made.guest.stes.set(
    8,
    s1Ste(0x5000).map((word, i) => (i === 2 ? word | (1 << 28) : word)),
  );
  made.guest.setSmmuen(true);
  made.plug(0);
  made.takeIoctls();
  made.host.invalidated.length = 0;
  return made;
}

/** Fails the nth HWPT_INVALIDATE with this errno, for each nth given. */
function failing(made: Bench, errnos: readonly number[]): void {
  let nth = 0;
  made.host.failing = (name) => (name === 'IOMMU_HWPT_INVALIDATE' ? (errnos[nth++] ?? 0) : 0);
}

describe('gap 17: on hardware that may forget it', () => {
  it('a TLBI or CFGI goes twice, and an ATC_INV once, when both rounds are complete', () => {
    const made = forgetful();
    expect(made.accelerator.invalidate(batch(NH_VA, cfgiCd(8), atcInv(8)))).toBe(INVALIDATE.Complete);
    expect(made.host.invalidated).toEqual(['12', '5:8', '12', '5:8', '40:8']);
    expect(made.takeIoctls()).toHaveLength(2);
  });
  it('a window of nothing but ATC_INV is one call', () => {
    const made = forgetful();
    expect(made.accelerator.invalidate(batch(atcInv(8), atcInv(8)))).toBe(INVALIDATE.Complete);
    expect(made.host.invalidated).toEqual(['40:8', '40:8']);
    expect(made.takeIoctls()).toHaveLength(1);
  });
  it('an endpoint that does not answer is waited for twice at most, and is the error of the CMD_SYNC', () => {
    const made = forgetful();
    // The first round is fine; the second has the ATC_INV in it. Then both rounds without it, and the ATC_INV alone.
    failing(made, [0, ERRNO.ETIMEDOUT, 0, 0, ERRNO.ETIMEDOUT]);
    expect(made.accelerator.invalidate(batch(NH_VA, atcInv(8)))).toBe(INVALIDATE.AtcInvTimeout);
    expect(made.host.invalidated).toEqual(['12', '12', '12']);
    expect(made.takeIoctls()).toHaveLength(5);
  });
  it('a resync goes twice too', () => {
    const made = forgetful();
    failing(made, [ERRNO.EIO]);
    expect(made.accelerator.invalidate(batch(NH_VA, cfgiCd(8)))).toBe(INVALIDATE.Complete);
    expect(made.host.invalidated).toEqual(['10', '6:8', '10', '6:8']);
  });
  it('a second round that fails counts as no round at all', () => {
    const made = forgetful();
    failing(made, [0, ERRNO.EIO]);
    expect(made.accelerator.invalidate(batch(NH_VA, cfgiCd(8)))).toBe(INVALIDATE.Complete);
    expect(made.host.invalidated).toEqual(['12', '5:8', '10', '6:8', '10', '6:8']);
  });
});
