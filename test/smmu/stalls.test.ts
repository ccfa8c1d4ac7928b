import { describe, expect, it } from 'vitest';
import { EVENT } from '../../src/smmu/ports.ts';
import { Rig } from '../support/translation-rig.ts';
import { RW_PAGE } from '../support/tables.ts';

const F_TRANSLATION = 0x10;
const IDS = { STALL_MODEL: 0, STALL_MAX: 2, TERM_MODEL: 0 };

interface Stalling {
  rig: Rig;
  /** `<stag> <outcome>` of each transaction that was released. */
  released: string[];
  map: (va: bigint) => void;
}

function stalling(cd = {}, ids = {}): Stalling {
  const rig = new Rig({ ...IDS, ...ids });
  const { table } = rig.stage1Stream(1, { S: 1, R: 0, ...cd });
  const released: string[] = [];
  rig.translator.stallPort = {
    resolved: (stag, _transaction, result) => {
      Object.assign(rig.result, result);
      released.push(`${stag} ${rig.describe(result.outcome)}`);
    },
  };
  return { rig, released, map: (va) => void table.map(va, 0x8000_0000n | va, RW_PAGE) };
}
const STALL = { mayStall: true };

describe('a transaction that may stall', () => {
  it('does not with S=0', () => {
    const { rig } = stalling({ S: 0 });
    expect(rig.access(1, 0x2000n, STALL)).toBe('abort');
  });

  it('does not on a configuration error or an external abort', () => {
    const { rig } = stalling({ TTB0: 0x9000_0000n });
    expect(rig.access(1, 0x2000n, STALL)).toBe('abort');
    expect(rig.access(9, 0x2000n, STALL)).toBe('abort');
    expect(rig.events().map(({ type, stall }) => [type, stall])).toEqual([
      [0x0b, undefined],
      [0x04, undefined],
    ]);
  });

  it('waits under a STAG with its record, whatever R', () => {
    const { rig } = stalling();
    expect(rig.access(1, 0x2000n, STALL)).toBe('stalled');
    expect(rig.access(1, 0x3000n, STALL)).toBe('stalled');
    const events = rig.events();
    expect(events).toMatchObject([
      { type: F_TRANSLATION, input: 0x2000n },
      { type: F_TRANSLATION, input: 0x3000n },
    ]);
    expect(new Set(events.map(({ stall }) => stall)).size).toBe(2);
  });

  it('is terminated and recorded without Stall when STAGs have run out, and if it may not stall', () => {
    const { rig } = stalling();
    rig.access(1, 0x2000n, STALL);
    rig.access(1, 0x3000n, STALL);
    rig.events();
    expect(rig.access(1, 0x4000n, STALL)).toBe('abort');
    expect(rig.access(1, 0x4000n)).toBe('abort');
    expect(rig.events().map(({ stall }) => stall)).toEqual([undefined, undefined]);
  });
});

describe('CMD_RESUME', () => {
  it.each([
    [1, 99],
    [2, 0],
  ])('of StreamID %i, STAG %i does nothing: nobody waits there', (sid, stag) => {
    const { rig, released } = stalling();
    rig.access(1, 0x2000n, STALL);
    rig.translator.resume(sid, stag, true, false);
    expect(released).toEqual([]);
  });

  it('retries, as if newly arrived', () => {
    const { rig, released, map } = stalling();
    rig.access(1, 0x2000n, STALL);
    map(0x2000n);
    rig.translator.resume(1, 0, true, false);
    rig.translator.resume(1, 0, true, false);
    expect(released).toEqual(['0 ok 80002000']);
  });

  it('retries in vain: it stalls again, with a new record', () => {
    const { rig, released } = stalling();
    rig.access(1, 0x2000n, STALL);
    rig.translator.resume(1, 0, true, false);
    expect(released).toEqual(['0 stalled']);
    expect(rig.events()).toHaveLength(2);
  });

  it.each([
    [true, 0, '0 abort'],
    [false, 0, '0 razwi'],
    [false, 1, '0 abort'],
  ])('terminates with abort=%s, TERM_MODEL=%i', (abort, TERM_MODEL, outcome) => {
    const { rig, released } = stalling({}, { TERM_MODEL });
    rig.access(1, 0x2000n, STALL);
    rig.translator.resume(1, 0, false, abort);
    expect(released).toEqual([outcome]);
    expect(rig.events()).toHaveLength(1);
  });
});

describe('everything that is stalled', () => {
  it('of one StreamID is aborted by CMD_STALL_TERM', () => {
    const { rig, released } = stalling({}, { STALL_MAX: 8 });
    rig.stage1Stream(2, { S: 1 });
    rig.access(1, 0x2000n, STALL);
    rig.access(2, 0x2000n, STALL);
    rig.access(1, 0x3000n, STALL);
    rig.translator.terminateStalls(1);
    expect(released).toEqual(['0 abort', '2 abort']);
  });

  it.each([
    ['SMMUEN=0', (rig: Rig) => rig.translator.smmuDisabled()],
    ['reset', (rig: Rig) => rig.translator.reset()],
  ])('is aborted by %s', (_what, act) => {
    const { rig, released } = stalling();
    rig.access(1, 0x2000n, STALL);
    rig.access(1, 0x3000n, STALL);
    act(rig);
    expect(released).toEqual(['0 abort', '1 abort']);
  });

  it('keeps its record until the queue takes it', () => {
    const { rig } = stalling();
    rig.status = EVENT.Full;
    rig.access(1, 0x2000n, STALL);
    rig.status = EVENT.Disabled;
    rig.access(1, 0x3000n, STALL);
    rig.translator.eventQueueWritable();
    expect(rig.events()).toEqual([]);
    rig.status = EVENT.Queued;
    rig.translator.eventQueueWritable();
    rig.translator.eventQueueWritable();
    expect(rig.events()).toMatchObject([
      { stall: 0, input: 0x2000n },
      { stall: 1, input: 0x3000n },
    ]);
  });

  it('loses its kept record when it is released first', () => {
    const { rig } = stalling();
    rig.status = EVENT.Full;
    rig.access(1, 0x2000n, STALL);
    rig.translator.resume(1, 0, false, true);
    rig.status = EVENT.Queued;
    rig.translator.eventQueueWritable();
    expect(rig.events()).toEqual([]);
  });

  it('follows S2S at stage 2', () => {
    const { rig } = stalling();
    const table = rig.stage2();
    rig.ste(3, { ...rig.stage2Fields(table), Config: 6, S2S: 1, S2R: 0 });
    expect(rig.access(3, 0x6_0000_0000n, STALL)).toBe('stalled');
    expect(rig.events()).toMatchObject([{ s2: true, stall: 0 }]);
  });
});
