import { describe, expect, it } from 'vitest';
import { IDENTITY_FRAME } from '../../src/guest/bare-guest.ts';
import { EventLedger } from '../../src/explore/event-ledger.ts';
import { FingerprintMap } from '../../src/explore/fingerprint-map.ts';
import { fingerprint } from '../../src/explore/fingerprint.ts';
import { GuestModel } from '../../src/explore/guest-model.ts';
import { possibleFailures } from '../../src/explore/schedule.ts';
import type { GuestEvent } from '../../src/guest/event.ts';

const SID = 8;

function translating(): GuestModel {
  const model = new GuestModel([SID]);
  model.storeSte(SID, 0);
  model.invalidateSte(SID);
  model.smmuEnabled = true;
  return model;
}

describe('what a guest may see', () => {
  it('while SMMUEN=0 is up to GBPA', () => {
    const model = new GuestModel([SID]);
    const [device] = model.devices;
    expect([...model.reaches(device)]).toEqual([IDENTITY_FRAME]);
    model.gbpaAbort = true;
    expect([...model.reaches(device)]).toEqual(['abort']);
  });

  it('of a new STE is both, until CFGI_STE', () => {
    const model = translating();
    const [device] = model.devices;
    model.storeSte(SID, 'bypass');
    expect([...model.attachments(device)]).toEqual(['translate', 'bypass']);
    model.invalidateSte(SID + 8);
    expect(model.attachments(device).size).toBe(2);
    model.invalidateSte(SID);
    expect([...model.attachments(device)]).toEqual(['bypass']);
  });

  it('of a new page is both, until TLBI and CMD_SYNC', () => {
    const model = translating();
    const [device] = model.devices;
    model.storePage(0, undefined);
    expect([...model.reaches(device)]).toEqual([0, 'abort']);
    model.sync();
    model.invalidateTlb(1);
    model.sync();
    expect(model.reaches(device).size).toBe(2);
    model.invalidateTlb(0);
    expect(model.reaches(device).size).toBe(2);
    model.sync();
    expect([...model.reaches(device)]).toEqual(['abort']);
  });

  it('of a page that changes between TLBI and CMD_SYNC is what was there since the TLBI', () => {
    const model = translating();
    const [device] = model.devices;
    model.storePage(0, 3);
    model.invalidateTlb(0);
    model.storePage(0, 2);
    model.sync();
    expect([...model.reaches(device)]).toEqual([3, 2]);
  });

  it('of a new CD is both, until CFGI_CD and TLBI are complete', () => {
    const model = translating();
    const [device] = model.devices;
    model.storeCd(0, 2);
    model.invalidateTlb(0);
    model.sync();
    expect(model.reaches(device)).toEqual(new Set([0, 2]));
    model.invalidateCd(SID);
    model.sync();
    model.invalidateTlb(0);
    model.sync();
    expect([...model.reaches(device)]).toEqual([2]);
  });

  it('after a reset is what memory holds', () => {
    const model = translating();
    model.storePage(0, 1);
    model.reset();
    model.smmuEnabled = true;
    expect([...model.reaches(model.devices[0])]).toEqual([1]);
  });
});

describe('the ledger', () => {
  const none = {
    delivered: 0,
    crowdedOut: 0,
    refused: 0,
    discarded: 0,
    lostInHost: 0,
    malformed: 0,
    readErrors: 0,
  };
  const event = { name: 'F_TRANSLATION', sid: SID, iova: 0x1000n } as GuestEvent;

  it('knows an event that nothing caused, or that came twice', () => {
    const ledger = new EventLedger();
    expect(ledger.look([event])?.invariant).toBe('events');
    const other = new EventLedger();
    other.fault('F_TRANSLATION', SID, 0x1000n);
    expect(other.look([event])).toBeUndefined();
    expect(other.look([event])).toBeUndefined();
    expect(other.look([event, event])?.invariant).toBe('events');
  });

  it('knows an event of an earlier life of the queue', () => {
    const ledger = new EventLedger();
    ledger.fault('F_TRANSLATION', SID, 0x1000n);
    ledger.close(none, false);
    expect(ledger.look([event])?.invariant).toBe('events');
  });

  it('misses what is neither delivered nor counted once all is quiet', () => {
    const ledger = new EventLedger();
    ledger.fault('F_TRANSLATION', SID, 0x1000n);
    expect(ledger.check(none, false, false)).toBeUndefined();
    expect(ledger.check(none, false, true)?.invariant).toBe('events');
    ledger.close({ ...none, discarded: 1 }, false);
    expect(ledger.check({ ...none, discarded: 1 }, false, true)).toBeUndefined();
  });

  it.each(['lostInHost', 'crowdedOut', 'discarded'] as const)('wants an overflow for what is %s', (cause) => {
    const ledger = new EventLedger();
    ledger.fault('F_TRANSLATION', SID, 0x1000n);
    expect(ledger.check({ ...none, [cause]: 1 }, false, true)?.invariant).toBe('events');
    expect(ledger.check({ ...none, [cause]: 1 }, true, true)).toBeUndefined();
  });

  it('wants one for what was discarded under a guest that listens, and none where it turned its queue off', () => {
    const counters = { ...none, discarded: 1 };
    for (const listens of [true, false]) {
      const ledger = new EventLedger();
      ledger.fault('F_TRANSLATION', SID, 0x1000n);
      ledger.close(counters, listens);
      expect(ledger.check(counters, listens, true)).toBeUndefined();
      expect(ledger.check(counters, !listens, true)?.invariant).toBe('events');
    }
  });

  it('wants an overflow for a loss, and for nothing else', () => {
    const ledger = new EventLedger();
    ledger.fault('F_TRANSLATION', SID, 0x1000n);
    expect(ledger.check(none, true, false)?.invariant).toBe('events');
    expect(ledger.check({ ...none, lostInHost: 1 }, false, false)?.invariant).toBe('events');
    expect(ledger.check({ ...none, lostInHost: 1 }, true, false)).toBeUndefined();
    ledger.took(0, true);
    expect(ledger.check({ ...none, lostInHost: 1 }, false, true)).toBeUndefined();
  });
});

it('a map of fingerprints holds the first number of each, however many', () => {
  const map = new FingerprintMap();
  const prints = Array.from({ length: 10_000 }, (_, i) => fingerprint(`state ${i}`));
  for (const [i, print] of prints.entries()) expect(map.enter(print, i)).toBeUndefined();
  for (const [i, print] of prints.entries()) expect(map.enter(print, 1)).toBe(i);
  expect(map.enter({ hi: 0, lo: 0 }, 7)).toBeUndefined();
  expect(map.enter({ hi: 0, lo: 0 }, 8)).toBe(7);
  expect(map.size).toBe(10_001);
});

it('each call may fail that can, counted by its kind, and none before the last failure', () => {
  const calls = ['IOMMU_HWPT_ALLOC', 'IOMMU_HWPT_INVALIDATE', 'IOMMU_OPTION', 'IOMMU_HWPT_ALLOC'];
  expect(possibleFailures(calls, 1)).toEqual([
    { at: 1, failure: { ioctl: 'IOMMU_HWPT_INVALIDATE', nth: 1, errno: 'EIO' } },
    { at: 1, failure: { ioctl: 'IOMMU_HWPT_INVALIDATE', nth: 1, errno: 'ETIMEDOUT' } },
    { at: 3, failure: { ioctl: 'IOMMU_HWPT_ALLOC', nth: 2, errno: 'ENOMEM' } },
  ]);
});
