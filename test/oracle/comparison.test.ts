import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

import { CASE_DEPARTURES } from './case-departures.ts';
import { compare } from './compare.ts';
import { WALK_DEPARTURES } from './departures.ts';
import { TEMPLATES, generate } from './generators.ts';
import { ModelOracle } from './model-oracle.ts';
import type { CaseResult, OracleCase } from './oracle-case.ts';
import { accessesOf, maskOf, wordsOf } from './records.ts';
import { recordedCases } from './recorded.ts';

const models = new ModelOracle();
const categories = Object.keys(TEMPLATES);

/** What the model makes of a case, as if QEMU had made it. */
const asQemu = (given: OracleCase): CaseResult => {
  const { out, final } = structuredClone(models.run(given));
  return { out, final };
};

const isExplained = (given: OracleCase, result: CaseResult): boolean =>
  compare(given, models, result).qemu.length === 0;

type Access = { ok: boolean; pa?: string; ev: number };

describe('a difference that no departure explains', () => {
  const changes: readonly (readonly [string, (result: CaseResult, step: number) => void])[] = [
    [
      'an access that goes elsewhere',
      ({ out }, i) => {
        const access = out[i] as Access;
        out[i] = access.ok ? { ...access, pa: '0x7ffff123' } : { ok: true, pa: '0x7ffff123', ev: access.ev };
      },
    ],
    [
      'two records of one access',
      ({ out }, i) => {
        const access = out[i] as Access;
        out[i] = { ...access, ev: 2 };
      },
    ],
  ];
  it.each(changes)('is found: %s', (_name, change) => {
    for (const category of categories)
      for (let seed = 1; seed <= 3; seed++) {
        const given = generate(category, seed);
        let accesses = 0;
        for (const [i, step] of given.steps.entries()) {
          if (step[0] !== 'dma' || accesses++ % 4 !== 0) continue;
          const result = asQemu(given);
          change(result, i);
          expect(isExplained(given, result), `${given.id} step ${i}`).toBe(false);
        }
      }
  });

  it('is found: one wrong bit of a record, where the architecture determines it', () => {
    let flipped = 0;
    for (const category of ['s1walk', 's2walk', 'nested', 'cd', 'strtab'])
      for (let seed = 1; seed <= 2; seed++) {
        const given = generate(category, seed);
        const drain = given.steps.length - 1;
        const count = (asQemu(given).out[drain] as string[]).length;
        for (let n = 0; n < count; n += 2)
          for (const bit of [1, 7, 20, 33, 64 + 39, 64 + 40, 64 + 60, 128 + 13, 192 + 20]) {
            const result = asQemu(given);
            const records = result.out[drain] as string[];
            const mask = maskOf(wordsOf(records[n]))[bit >> 6];
            if (((mask >> BigInt(bit & 63)) & 1n) === 0n) continue;
            const bytes = Buffer.from(records[n], 'hex');
            bytes[bit >> 3] ^= 1 << (bit & 7);
            records[n] = bytes.toString('hex');
            flipped += 1;
            expect(isExplained(given, result), `${given.id} record ${n} bit ${bit}`).toBe(false);
          }
      }
    expect(flipped).toBeGreaterThan(80);
  });

  it('is found: a register that is read, or is left, with another value', () => {
    for (const category of ['gbpa', 'cr0', 'cmdq', 'evtq', 'gerror'])
      for (let seed = 1; seed <= 4; seed++) {
        const given = generate(category, seed);
        for (const [i, step] of given.steps.entries()) {
          if (step[0] !== 'r32') continue;
          const result = asQemu(given);
          result.out[i] = '0x12345';
          expect(isExplained(given, result), `${given.id} step ${i}`).toBe(false);
        }
        for (const name of ['CR0ACK', 'GERROR', 'EVENTQ_PROD', 'CMDQ_CONS']) {
          const result = asQemu(given);
          result.final[name] = '0x55';
          expect(isExplained(given, result), `${given.id} ${name}`).toBe(false);
        }
      }
  });

  it('is found: QEMU ends', () => {
    const given = generate('s1walk', 3);
    expect(isExplained(given, { out: [], final: {}, crashed: 'QEMU ended by SIGABRT' })).toBe(false);
  });
});

describe('known departures', () => {
  /**
   * This one has more records in QEMU than its Event queue holds, of a departure of translation: what is lost then, and
   * where, is not predicted.
   */
  const OVERFLOWS = ['s2_concat-ce8e1d29d6'];

  it('explain all that QEMU was ever recorded to do', () => {
    const unexplained: string[] = [];
    for (const { given, result } of recordedCases())
      if (!isExplained(given, result)) unexplained.push(given.id);
    expect(unexplained).toEqual(OVERFLOWS);
  });

  it('are not needed where QEMU is right', () => {
    for (const category of categories) {
      const given = generate(category, 7);
      const { used, model, qemu } = compare(given, models, asQemu(given));
      expect({ used: [...used], model, qemu }, given.id).toEqual({ used: [], model: [], qemu: [] });
    }
  });
});

describe('docs/oracle.md', () => {
  it('lists the departures with their reasons and clauses, and no others', () => {
    const page = readFileSync(new URL('../../docs/oracle.md', import.meta.url), 'utf8').replaceAll(
      /\s+/g,
      ' ',
    );
    const rows = [
      ...Object.entries(WALK_DEPARTURES),
      ...CASE_DEPARTURES.map((row) => [row.id, row] as const),
    ];
    for (const [id, { reason, clause }] of rows)
      expect(page).toContain(`- \`${id}\`: ${reason} (${clause})`.replaceAll(/\s+/g, ' '));
    expect(page.match(/- `[^`]+`: \w/g)).toHaveLength(rows.length);
  });
});

describe('the generators', () => {
  it('give the same case for the same seed, and another one for another', () => {
    for (const category of categories) {
      expect(generate(category, 11)).toEqual(generate(category, 11));
      expect(generate(category, 11).steps).not.toEqual(generate(category, 12).steps);
    }
  });

  it('give cases in which the model is what the walker is', () => {
    for (const category of categories)
      for (let seed = 1; seed <= 25; seed++) {
        const given = generate(category, seed);
        expect(compare(given, models, asQemu(given)).model, `${given.id} ${given.name}`).toEqual([]);
      }
  });

  it('reach pages, and all that can go wrong on the way', () => {
    const seen = new Map<string, number>();
    for (const category of categories)
      for (let seed = 1; seed <= 40; seed++) {
        const given = generate(category, seed);
        for (const { ok, record } of accessesOf(given, models.run(given).out)?.values() ?? []) {
          const s2 = record !== undefined && (record[1] & (1n << 39n)) !== 0n ? ' s2' : '';
          const name =
            record === undefined ? (ok ? 'ok' : 'silent') : `${(record[0] & 0xffn).toString(16)}${s2}`;
          seen.set(name, (seen.get(name) ?? 0) + 1);
        }
      }
    const WANTED = ['ok', 'silent', '2', '3', '4', '9', 'a', 'b', '10', '11', '12', '13'];
    for (const name of [...WANTED, 'b s2', '10 s2', '11 s2', '12 s2', '13 s2'])
      expect(seen.get(name) ?? 0, `${name} in ${JSON.stringify([...seen])}`).toBeGreaterThan(3);
  });
});
