import { describe, expect, it } from 'vitest';
import { formatWalk } from '../../../src/explain/walk/format-walk.ts';
import type { WalkExplanation } from '../../../src/explain/walk/walk.ts';
import { KIND } from '../../../src/smmu/transaction.ts';
import { LEAF, RW_PAGE, S2_RW_PAGE } from '../../support/tables.ts';
import { Rig } from '../../support/translation-rig.ts';
import { explain, causeOf, withLeaf, nested } from './explained-rig.ts';

describe('a translation that succeeds', () => {
  const names = ({ steps }: WalkExplanation): string[] => steps.map(({ name }) => name);

  it('shows every step with its address and value: pages of 4 KiB', () => {
    const found = explain(withLeaf(RW_PAGE), 0x1234n);
    expect(found).toMatchObject({ outcome: 'ok', pa: '0x80001234', log2Size: 12 });
    expect(found.cause).toBeUndefined();
    expect(names(found)).toEqual([
      'STRTAB_BASE, STRTAB_BASE_CFG',
      'STE of StreamID 0x1',
      'CD of the stream',
      'stage 1',
      'level 1',
      'level 2',
      'level 3',
      'permissions',
      'output of stage 1',
    ]);
    const [, ste, cd, , , , leaf, permissions] = found.steps;
    expect(ste.address).toBe('0x40000040');
    expect(ste.words).toHaveLength(8);
    expect(cd.fields.map(({ name }) => name)).toContain('TTB0');
    expect(leaf.words).toEqual(['0x0000000080001c43']);
    expect(leaf.text).toContain('A page of 4 KiB at 0x80001000');
    expect(permissions.text).toBe(
      'It allows unprivileged rwx, privileged rw-; the access needs unprivileged read.',
    );
  });

  it('of a block of 2 MiB', () => {
    const rig = new Rig();
    const { table } = rig.stage1Stream(1);
    table.map(0x4000_0000n, 0x8020_0000n, RW_PAGE, 2);
    const found = explain(rig, 0x4000_1234n);
    expect(found).toMatchObject({ pa: '0x80201234', log2Size: 21 });
    expect(names(found)).not.toContain('level 3');
    expect(found.steps.at(-3)!.text).toContain('A block of 2 MiB at 0x80200000');
  });

  it('of both stages, which allow what both do', () => {
    const found = explain(nested(RW_PAGE, S2_RW_PAGE & ~LEAF.S2W), 0x1234n);
    expect(found.pa).toBe('0x80001234');
    expect(found.steps.at(-1)!.text).toBe(
      'PA 0x80001234. Both stages together allow unprivileged r-x, privileged r--.',
    );
    expect(found.steps.filter(({ depth, kind }) => depth === 1 && kind === 'stage')).toHaveLength(4);
  });

  it('of a stream that bypasses', () => {
    const rig = new Rig();
    rig.ste(1, { Config: 4 });
    const found = explain(rig, 0x1234n);
    expect(found).toMatchObject({ outcome: 'ok', pa: '0x1234' });
    expect(names(found)).toEqual(['STRTAB_BASE, STRTAB_BASE_CFG', 'STE of StreamID 0x1']);
  });

  it('of a SubstreamID', () => {
    const ids = { SSIDSIZE: 8 };
    const rig = new Rig(ids);
    const table = rig.stage1();
    table.map(0x1000n, 0x8000_1000n, RW_PAGE);
    const cds = rig.allocator.take(256n);
    const cd = rig.cd({ T0SZ: 25, IPS: 4, TTB0: table.base });
    for (let i = 0n; i < 64n; i += 8n) rig.write(cds + 128n + i, rig.read(cd + i));
    rig.ste(1, { Config: 5, S1CDMax: 2, S1ContextPtr: cds });
    const found = explain(rig, 0x1000n, { ssid: 2 }, ids);
    expect(found).toMatchObject({ outcome: 'ok', ssid: 2 });
    expect(names(found)[2]).toBe('CD of SubstreamID 0x2');
  });

  it('of an ATS request that grants what both stages allow, or nothing', () => {
    const ids = { ATS: 1, NS1ATS: 1 };
    const rig = new Rig(ids);
    const { table } = rig.stage1Stream(1, {}, { EATS: 1 });
    table.map(0x1000n, 0x8000_1000n, RW_PAGE | LEAF.AP2);
    const ats = { kind: KIND.AtsRequest };
    expect(explain(rig, 0x1000n, ats, ids).summary).toMatch(/0x80001000 \(4 KiB\), granting read\.$/);
    const nothing = explain(rig, 0x2000n, ats, ids);
    expect([nothing.outcome, nothing.event, causeOf(nothing)]).toEqual(['ok', 'F_TRANSLATION', 'Valid [0]']);
    expect(nothing.summary).toContain('answered with nothing');
  });
});

describe('the text', () => {
  it('is the outcome, its cause and the way, in lines of the width asked for', () => {
    const text = formatWalk(explain(nested(RW_PAGE & ~LEAF.AF), 0x1000n), { width: 80 });
    expect(text).toMatch(/^An unprivileged read of IOVA 0x1000 by StreamID 0x1 is aborted/);
    expect(text).toContain('\nCause:\n  AF [10] of the level 3 descriptor of stage 1 at 0x');
    expect(text).toContain('\nThe way:\n');
    expect(Math.max(...text.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  it('is sentences: every step ends with a full stop', () => {
    for (const rig of [nested(RW_PAGE), withLeaf(RW_PAGE)])
      for (const { text } of explain(rig, 0x1000n).steps) expect(text).toMatch(/[.:]$/);
  });
});

it('JSON carries the explanation as it is', () => {
  const found = explain(nested(RW_PAGE), 0x1000n, { ssid: 1 });
  expect(JSON.parse(JSON.stringify(found))).toEqual(found);
});
