import { describe, expect, it } from 'vitest';
import { formatText } from '../../src/explain/format.ts';
import { explainText } from '../../src/explain/text.ts';
import { KERNEL_7_3, driver, RAW, DECODED, SUMMARY_RAW, problemsOf } from './driver-lines.ts';
import { randomFrom } from '../support/xorshift.ts';

describe('damaged logs', () => {
  /** Column of the message behind the prefix of {@link driver}. */
  const AT = '[    2.387067] arm-smmu-v3 3e000000.smmuv3: '.length + 1;

  it('with a doubleword that is cut off: the rest of the record is still explained', () => {
    const lines = RAW.with(3, '\t0x00000deadbe');
    const { items, problems } = explainText(driver(lines));
    expect(items).toHaveLength(1);
    expect(items[0].summary).toContain('unprivileged data read of an IOVA that the text does not give');
    expect(problems.map(({ line, column }) => [line, column])).toEqual([
      [1, AT],
      [4, AT + 1],
    ]);
    expect(problems[0].message).toContain('this event has 3 of its 4 doublewords');
    expect(problems[1].message).toContain('has 11 digits where 16 belong: the line is cut off');
  });

  it('with a digit that is none', () => {
    expect(problemsOf(driver(RAW.with(2, '\t0x00000208000000x0')))).toContain(
      `3:${AT + 17}: 'x' is not a hexadecimal digit`,
    );
  });

  it('that end in the middle of a record', () => {
    const { items, problems } = explainText(driver(RAW.slice(0, 2)));
    expect(items[0]).toMatchObject({ name: 'F_TRANSLATION', line: 1, lastLine: 2 });
    expect(problems[0]).toMatchObject({ line: 1, message: expect.stringContaining('1 of its 4') as string });
    expect(explainText(driver(RAW.slice(0, 1))).items[0].summary).toBe(
      'The SMMU reported F_TRANSLATION; the log does not give the record.',
    );
  });

  it('where a new record starts before the last one is complete', () => {
    const { items, problems } = explainText(driver([...RAW.slice(0, 3), ...RAW]));
    expect(items.map(({ summary }) => summary)).toEqual([
      'An unprivileged data read of an IOVA that the text does not give by the device with StreamID 0x8 was terminated: stage 1 has no mapping for it.',
      SUMMARY_RAW,
    ]);
    expect(problems).toHaveLength(1);
  });

  it('with doublewords of nothing', () => {
    expect(problemsOf(driver(['\t0x0000000800000010']))).toEqual([
      `1:${AT + 1}: 0x0000000800000010 belongs to no record: the line that announces it is missing`,
    ]);
  });

  it('whose first line and record disagree', () => {
    const found = problemsOf(driver(RAW.with(0, 'event 0x12 received:')));
    expect(found[0]).toContain(`1:${AT}: the first line says event 0x12, the record says 0x10`);
  });

  it('with a decoded line that is cut off', () => {
    const { items, problems } = explainText(
      driver(['event: F_TRANSLATION client: 0000:00:01.0 sid: 0x8 ssid: 0x0 iova: 0xdeadbe']),
    );
    expect(items[0].summary).toContain('0000:00:01.0 (StreamID 0x8)');
    expect(problems[0].message).toContain('cut off or damaged');
    expect(explainText(driver(['event: F_TRANSLATION client: 0000:00'])).problems).toHaveLength(1);
  });

  it('with an access line that is cut off, or that has lost its event', () => {
    expect(problemsOf(driver([DECODED[0], 'unpriv data read s1 "Inp']))[0]).toContain('2:');
    expect(problemsOf(driver([DECODED[1]]))[0]).toContain('the event that this line describes is missing');
  });

  it('with a first line that cannot be read keep it as it is', () => {
    const { items, problems } = explainText(driver(['event 0xqq received:', ...RAW]));
    expect(items.map(({ name }) => name)).toEqual(['other', 'F_TRANSLATION']);
    expect(problems[0].message).toContain('looks like the start of an event');
  });
});

describe('any text at all', () => {
  it('is read without an exception, and problems have a place in it', () => {
    const lines = `${KERNEL_7_3}${driver(RAW)}\nste: 0x1 0x2\ncd:\n0x1 0x2 0x3 0x4\n`.split('\n');
    const random = randomFrom(77);
    for (let round = 0; round < 1500; round++) {
      const mutated = lines.slice();
      for (let n = 0; n < 4; n++) {
        const at = random() % mutated.length;
        const line = mutated[at];
        const cut = line.length === 0 ? 0 : random() % line.length;
        const what = random() % 6;
        if (what === 0) mutated[at] = line.slice(0, cut);
        else if (what === 1)
          mutated[at] = line.slice(0, cut) + String.fromCharCode(random() % 0x180) + line.slice(cut + 1);
        else if (what === 2) mutated.splice(at, 1);
        else if (what === 3) mutated.splice(at, 0, mutated[random() % mutated.length]);
        else if (what === 4) mutated[at] = line + mutated[random() % mutated.length];
        else mutated[at] = line.slice(cut);
      }
      const text = mutated.join('\n');
      const total = text.split('\n').length;
      const explained = explainText(text);
      formatText(explained);
      JSON.stringify(explained);
      for (const { line, column } of [...explained.problems, ...explained.items]) {
        expect(line).toBeGreaterThanOrEqual(1);
        expect(line).toBeLessThanOrEqual(total);
        expect(column).toBeGreaterThanOrEqual(1);
      }
    }
  });

  it('of very long lines is read in linear time', () => {
    const long = 'x'.repeat(2_000_000);
    const text = [
      long,
      `[ 1.0] arm-smmu-v3 a: ${long}`,
      '[1.0] '.repeat(300_000),
      '0x'.repeat(500_000),
      `event: ${' client: '.repeat(200_000)}`,
    ];
    expect(explainText(text.join('\n')).items).toHaveLength(1);
  });

  it('keeps what damage did not touch', () => {
    const good = driver(RAW.map((line) => line.replace('0x0000000800000010', '0x0000004800000010')));
    const text = `${driver(['event 0x10 received:', '\t0xnonsense'])}\n${good}\n${driver(RAW.slice(2))}`;
    const { items, problems } = explainText(text);
    expect(
      items.some(({ summary }) => summary.includes('IOVA 0xdeadbeef000 by the device with StreamID 0x48')),
    ).toBe(true);
    expect(problems.length).toBeGreaterThanOrEqual(3);
  });
});
