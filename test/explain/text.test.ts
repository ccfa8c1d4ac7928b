import { describe, expect, it } from 'vitest';
import { formatText } from '../../src/explain/format.ts';
import { explainText } from '../../src/explain/text.ts';
import {
  KERNEL_6_12,
  KERNEL_7_3,
  driver,
  RAW,
  DECODED,
  SUMMARY_RAW,
  SUMMARY_CLIENT,
  events,
  problemsOf,
} from './driver-lines.ts';

describe('records between other lines', () => {
  it.each<[string, string, string]>([
    [
      '64 bytes without a label',
      '0x1 '.repeat(8),
      "1:1: 64 bytes can be an STE or a CD: write 'ste:' or 'cd:' before them",
    ],
    [
      'a number of bytes that nothing has',
      '0x0000000000000001 0x2 0x3',
      '1:1: 24 bytes are no event record (32)',
    ],
    [
      'an STE of seven words',
      'ste: 0x1 0x2 0x3 0x4 0x5 0x6 0x7',
      '1:6: 7 hexadecimal numbers where 8 of 64 bits',
    ],
    ['an STE with a word that is none', 'note\nste: 0x1 0x2 0x3 0x4 0x5 0x6 0x7 0x8z', "2:37: '0x8z' is not"],
    ['a label without words', 'cd:\n\nhello', '1:1: nothing where 8 of 64 bits'],
  ])('%s is a problem with its place', (_, text, expected) => {
    const found = problemsOf(text);
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(expected);
  });

  it('are found with and without labels, over one line or several', () => {
    const text = [
      'the record was',
      '0x0000000800000010 0x0000020800000000 0x00000deadbeef000 0x0000000000000000',
      'and again, as it came from memory:',
      '10000000080000000000000008020000',
      '00f0eedbea0d00000000000000000000',
      '',
      'ste: 0x4403800b 0xd6 0 0 0 0 0 0',
      'CD =',
      '  0x0002e205c0003510 0x44007000 0x0 0xf404ff44',
      '  0x0 0x0 0x0 0x0',
      'cmd 0x0000000800000003 0x1',
    ].join('\n');
    const { items, problems } = explainText(text);
    expect(problems).toEqual([]);
    expect(items.map(({ kind, line, lastLine }) => [kind, line, lastLine])).toEqual([
      ['event', 2, 5],
      ['ste', 7, 7],
      ['cd', 8, 10],
      ['command', 11, 11],
    ]);
    expect(items[0]).toMatchObject({ summary: SUMMARY_RAW, times: 2 });
  });

  it('are not seen in what other drivers print', () => {
    const text = [
      '[    1.0] Code: d503201f 910003fd',
      '[    1.1] 0123456789abcdef',
      '[    1.2] event: something else happened',
      'command not found',
      'ste',
      '42',
      '[    1.3] nvme nvme0: 1/0/0 default/read/poll queues',
    ].join('\n');
    expect(explainText(text)).toEqual({ items: [], problems: [] });
    expect(formatText(explainText(text))).toBe('Nothing about an SMMUv3 was found.');
  });
});

describe('the samples of real kernels', () => {
  it('6.12: raw doublewords, and the device by its requester ID', () => {
    const { items, problems } = explainText(KERNEL_6_12);
    expect(problems).toEqual([]);
    expect(items.map(({ name }) => name)).toEqual(['probe', 'queue', 'queue', 'F_TRANSLATION']);
    expect(items[3]).toMatchObject({
      severity: 'error',
      line: 9,
      lastLine: 13,
      time: '2.082035',
      smmu: '3e000000.smmuv3',
      summary: SUMMARY_RAW,
      clause: '7.3.13',
    });
    expect(items[3].details.join(' ')).toContain('this is nvme 0000:00:01.0, which the same log names');
  });

  it('7.3: raw and decoded lines are one event, with its client', () => {
    const { items, problems } = explainText(KERNEL_7_3);
    expect(problems).toEqual([]);
    expect(events(items)).toHaveLength(1);
    expect(events(items)[0]).toMatchObject({
      line: 11,
      lastLine: 24,
      times: 2,
      summary: SUMMARY_CLIENT.replace('0000:00:01.0', 'nvme 0000:00:01.0'),
    });
  });

  it('say what the SMMU can do', () => {
    expect(explainText(KERNEL_6_12).items[0].summary).toBe(
      'The driver found an SMMU with 48-bit output addresses: 2-level stream tables, little-endian tables, coherent walks, stage 1 and range invalidation.',
    );
  });
});

describe('formatted text', () => {
  it('is plain, no wider than asked for, and says how to go on', () => {
    expect(formatText(explainText(driver([...RAW, ...DECODED])), { width: 80 })).toBe(
      [
        'F_TRANSLATION (lines 1 to 7, at 2.387067, 3e000000.smmuv3, IHI 0070 7.3.13)',
        '  An unprivileged data read of IOVA 0xdeadbeef000 by 0000:00:01.0 (StreamID 0x8)',
        '  was terminated: stage 1 has no mapping for it.',
        '  Check:',
        '  - The driver let the device use an address that it did not map, or not any',
        '    more: look for DMA after dma_unmap_*(), stale descriptors or ring pointers',
        '    after a reset, and lengths that run past the buffer.',
        '  - If the number is a physical address, somebody bypasses the DMA API: a',
        '    driver, or firmware that left the device running (boot display, network',
        '    boot) and needs an RMR.',
      ].join('\n'),
    );
  });

  it('adds up what happened, and ends with what it did not understand', () => {
    const text = formatText(
      explainText(driver([...RAW, ...RAW, '\t0x1', ...RAW.with(0, 'event 0x12 received:')])),
    );
    expect(text).toContain('3 events: 3 F_TRANSLATION.');
    expect(text).toMatch(
      /Not understood \(line:column\):\n {2}11:46: 0x1 belongs to no record.*\n {2}12:45: the first line/,
    );
  });

  it('shows the fields of structures, all of them if asked', () => {
    const ste = explainText('ste: 0x4403800b 0xd6 0 0 0 0 0 0');
    expect(formatText(ste)).toContain('V=0x1 Config=0x5 S1ContextPtr=0x44038000 S1DSS=0x2');
    expect(formatText(ste, { allFields: true })).toMatch(/\n {2,}\[55:6\] S1ContextPtr +0x44038000\n/);
  });

  it('never passes its width where there are blanks to break at', () => {
    for (const width of [40, 80, 110])
      for (const line of formatText(explainText(KERNEL_7_3), { width }).split('\n'))
        if (!/^\S+ \(/.test(line) && !line.startsWith('F_')) expect(line.length).toBeLessThanOrEqual(width);
  });
});
