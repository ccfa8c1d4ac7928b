import { describe, expect, it } from 'vitest';
import { Bench } from '../support/accelerated.ts';
import { ABORT_STE, s1Ste } from '../support/scripted-guest.ts';

/** What can happen to a machine, on one device and one guest. */
const EVENTS: Readonly<Record<string, (bench: Bench) => void>> = {
  plug: (bench) => {
    if (bench.accelerator.device('d0') === undefined) bench.plug(0);
  },
  unplug: (bench) => bench.unplug(0),
  'EVENTQEN=1': (bench) => bench.guest.setEventqen(true),
  'EVENTQEN=0': (bench) => bench.guest.setEventqen(false),
  're-base': (bench) => bench.guest.setEventqBase(0x4001_0000, 3),
  reset: (bench) => {
    bench.guest.reset();
    bench.accelerator.reset();
  },
  'SMMUEN=1': (bench) => bench.guest.setSmmuen(true),
  STE: (bench) => bench.guest.setSte(8, bench.guest.stes.get(8) === ABORT_STE ? s1Ste(0x5000) : ABORT_STE),
};
const NAMES = Object.keys(EVENTS);

function* sequences(length: number): Generator<readonly string[]> {
  if (length === 0) yield [];
  else for (const rest of sequences(length - 1)) for (const name of NAMES) yield [name, ...rest];
}

describe('no order matters', () => {
  it.each([1, 2, 3, 4])(
    'all sequences of %i events end with the vEVENTQ there exactly if both conditions hold',
    (length) => {
      for (const sequence of sequences(length)) {
        const bench = new Bench();
        for (const name of sequence) EVENTS[name](bench);
        const plugged = bench.accelerator.device('d0') === undefined ? 0 : 1;
        try {
          bench.expectSettled(plugged);
        } catch (error) {
          throw new Error(`after ${sequence.join(', ')}`, { cause: error });
        }
      }
    },
  );
  it('gap 4: the same conditions give the same objects, whichever came first', () => {
    const ends = [
      ['plug', 'EVENTQEN=1', 'SMMUEN=1'],
      ['EVENTQEN=1', 'plug', 'SMMUEN=1'],
      ['EVENTQEN=1', 'SMMUEN=1', 'plug'],
      ['SMMUEN=1', 'EVENTQEN=1', 'plug'],
      ['plug', 'unplug', 'EVENTQEN=1', 'EVENTQEN=0', 'EVENTQEN=1', 'SMMUEN=1', 'plug'],
    ].map((sequence) => {
      const bench = new Bench();
      for (const name of sequence) EVENTS[name](bench);
      // A bypass table may be there from before SMMUEN.
      return {
        ...bench.host.objects,
        nested: 0,
        attached: bench.host.attached(0),
        noted: bench.host.device(0).noted,
      };
    });
    for (const end of ends) expect(end).toEqual(ends[0]);
  });
});
