import { describe, expect, it } from 'vitest';
import { EVENT_CLASS, EVENT_RECORD, EVENT_TYPE, EVENTS, eventLayout } from '../../src/spec/events.ts';
import { PRI_ENTRY } from '../../src/spec/queues.ts';

/** Second source: [field, 64-bit word, high bit, low bit], from the Linux driver's masks; IPA and FetchAddr are [51:..] there. */
const DRIVER = [
  ['EventID', 0, 7, 0],
  ['SSV', 0, 11, 11],
  ['SubstreamID', 0, 31, 12],
  ['StreamID', 0, 63, 32],
  ['STAG', 1, 15, 0],
  ['Stall', 1, 31, 31],
  ['PnU', 1, 33, 33],
  ['InD', 1, 34, 34],
  ['RnW', 1, 35, 35],
  ['NSIPA', 1, 38, 38],
  ['S2', 1, 39, 39],
  ['CLASS', 1, 41, 40],
  ['TTRnW', 1, 44, 44],
  ['InputAddr', 2, 63, 0],
  ['IPA', 3, 55, 12],
  ['FetchAddr', 3, 55, 3],
  // 7.3.4 and 7.3.6, which the driver does not decode.
  ['Reason', 1, 15, 0],
  ['GPCF', 1, 16, 16],
  ['Span', 1, 3, 0],
  ['ReqP', 1, 28, 28],
  ['ReqX', 1, 29, 29],
  ['ReqW', 1, 30, 30],
  ['ReqR', 1, 31, 31],
] as const;

const NUMBERS = {
  F_UUT: 1,
  C_BAD_STREAMID: 2,
  F_STE_FETCH: 3,
  C_BAD_STE: 4,
  F_BAD_ATS_TREQ: 5,
  F_STREAM_DISABLED: 6,
  F_TRANSL_FORBIDDEN: 7,
  C_BAD_SUBSTREAMID: 8,
  F_CD_FETCH: 9,
  C_BAD_CD: 10,
  F_WALK_EABT: 11,
  F_TRANSLATION: 16,
  F_ADDR_SIZE: 17,
  F_ACCESS: 18,
  F_PERMISSION: 19,
  F_TLB_CONFLICT: 32,
  F_CFG_CONFLICT: 33,
  E_PAGE_REQUEST: 36,
  F_VMS_FETCH: 37,
};

const PRI = [
  ['StreamID', 0, 31, 0],
  ['SubstreamID', 0, 51, 32],
  ['Priv', 0, 58, 58],
  ['X', 0, 59, 59],
  ['R', 0, 60, 60],
  ['W', 0, 61, 61],
  ['Last', 0, 62, 62],
  ['SSV', 0, 63, 63],
  ['PRGIndex', 1, 8, 0],
  ['Addr', 1, 63, 12],
] as const;

describe('the event table', () => {
  it('has the numbers of chapter 7', () => {
    expect(EVENT_TYPE).toEqual(NUMBERS);
    expect(EVENTS.map(({ name, type }) => [name, type])).toEqual(Object.entries(NUMBERS));
    expect(EVENT_CLASS).toEqual({ CD: 0, TT: 1, IN: 2 });
  });

  it.each(DRIVER)('%s is where the Linux driver puts it', (name, dword, hi, lo) => {
    expect([EVENT_RECORD[name].hi, EVENT_RECORD[name].lo]).toEqual([dword * 64 + hi, dword * 64 + lo]);
  });

  it('checks every field against the second source', () => {
    expect(Object.keys(EVENT_RECORD).sort()).toEqual(DRIVER.map(([name]) => name).sort());
  });

  it('gives no record two fields in one place', () => {
    for (const spec of EVENTS) {
      const owner: string[] = [];
      for (const [name, field] of Object.entries(eventLayout(spec)))
        for (let bit = field.lo; bit <= field.hi; bit++) {
          expect(owner[bit], `${spec.name}[${bit}]`).toBeUndefined();
          owner[bit] = name;
        }
    }
  });

  it('gives a fetch address to fetches and an input address to faults of an access', () => {
    const having = (field: string): string[] =>
      EVENTS.filter(({ fields }) => (fields as readonly string[]).includes(field)).map(({ name }) => name);
    expect(having('FetchAddr')).toEqual(['F_STE_FETCH', 'F_CD_FETCH', 'F_WALK_EABT', 'F_VMS_FETCH']);
    expect(having('Stall')).toEqual(['F_TRANSLATION', 'F_ADDR_SIZE', 'F_ACCESS', 'F_PERMISSION']);
    expect(having('IPA')).toEqual([...having('Stall'), 'F_TLB_CONFLICT']);
    expect(having('TTRnW')).toEqual(['F_PERMISSION']);
  });
});

describe('the PRI queue entry', () => {
  it.each(PRI)('%s is where the Linux driver puts it', (name, dword, hi, lo) => {
    expect([PRI_ENTRY[name].hi, PRI_ENTRY[name].lo]).toEqual([dword * 64 + hi, dword * 64 + lo]);
  });

  it('has no other field', () => {
    expect(Object.keys(PRI_ENTRY)).toEqual(PRI.map(([name]) => name));
  });
});
