import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { formatText } from '../../src/explain/format.ts';
import { explainText, type Item } from '../../src/explain/text.ts';

const sample = (name: string): string => readFileSync(new URL(`samples/${name}`, import.meta.url), 'utf8');
const KERNEL_6_12 = sample('dmesg-6.12-event-and-gerror.txt');
const KERNEL_7_3 = sample('dmesg-7.3-event-and-gerror.txt');

/** The driver's lines with a prefix each. */
const driver = (lines: readonly string[], smmu = '3e000000.smmuv3'): string =>
  lines.map((line) => `[    2.387067] arm-smmu-v3 ${smmu}: ${line}`).join('\n');

const RAW = [
  'event 0x10 received:',
  '\t0x0000000800000010',
  '\t0x0000020800000000',
  '\t0x00000deadbeef000',
  '\t0x0000000000000000',
];
const DECODED = [
  'event: F_TRANSLATION client: 0000:00:01.0 sid: 0x8 ssid: 0x0 iova: 0xdeadbeef000 ipa: 0x0',
  'unpriv data read s1 "Input address caused fault" stag: 0x0',
];
const SUMMARY_RAW =
  'An unprivileged data read of IOVA 0xdeadbeef000 by the device with StreamID 0x8 was terminated: stage 1 has no mapping for it.';
const SUMMARY_CLIENT = SUMMARY_RAW.replace('the device with StreamID 0x8', '0000:00:01.0 (StreamID 0x8)');

const events = (items: readonly Item[]): Item[] => items.filter(({ kind }) => kind === 'event');
const problemsOf = (text: string): string[] =>
  explainText(text).problems.map(({ line, column, message }) => `${line}:${column}: ${message}`);

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

describe('the forms of logs', () => {
  const forms: [string, (line: string, i: number) => string][] = [
    ['dmesg', (line) => `[    2.387067] arm-smmu-v3 3e000000.smmuv3: ${line}`],
    ['dmesg with callers', (line) => `[    2.387067][   T12] arm-smmu-v3 3e000000.smmuv3: ${line}`],
    ['dmesg -T', (line) => `[Tue Mar  4 12:00:00 2025] arm-smmu-v3 3e000000.smmuv3: ${line}`],
    ['dmesg -r', (line) => `<3>[    2.387067] arm-smmu-v3 3e000000.smmuv3: ${line}`],
    ['dmesg -x', (line) => `kern  :err   : [    2.387067] arm-smmu-v3 3e000000.smmuv3: ${line}`],
    ['dmesg -d', (line) => `[    2.387067 <    0.000012>] arm-smmu-v3 3e000000.smmuv3: ${line}`],
    ['/dev/kmsg', (line, i) => `3,${412 + i},2387067,-;arm-smmu-v3 3e000000.smmuv3: ${line}`],
    ['journalctl', (line) => `Mar 04 12:00:00 host kernel: arm-smmu-v3 3e000000.smmuv3: ${line}`],
    [
      'journalctl -o short-iso',
      (line) => `2025-03-04T12:00:00+0000 host kernel: arm-smmu-v3 3e000000.smmuv3: ${line}`,
    ],
    [
      'journalctl -o short-monotonic',
      (line) => `[    2.387067] host kernel: arm-smmu-v3 3e000000.smmuv3: ${line}`,
    ],
    [
      'syslog',
      (line) =>
        `Mar  4 12:00:00 host kernel: [    2.387067] arm-smmu-v3 3e000000.smmuv3: ${line.replace('\t', '#011')}`,
    ],
    ['a serial console', (line) => `[    2.387067] arm-smmu-v3 3e000000.smmuv3: ${line}\r`],
    [
      'colours',
      (line) =>
        `\u001b[32m[    2.387067] \u001b[0m\u001b[33marm-smmu-v3 3e000000.smmuv3\u001b[0m: \u001b[31m${line}\u001b[0m`,
    ],
    ['ACPI names', (line) => `[    2.387067] arm-smmu-v3 arm-smmu-v3.0.auto: ${line}`],
    [
      'tabs that became blanks',
      (line) => `[    2.387067] arm-smmu-v3 3e000000.smmuv3: ${line.replace('\t', '        ')}`,
    ],
    ['messages alone', (line) => line],
    ['time stamps and messages', (line) => `[    2.387067] ${line}`],
  ];

  it.each(forms)('%s', (_, form) => {
    const { items, problems } = explainText([...RAW, ...DECODED].map(form).join('\n'));
    expect(problems).toEqual([]);
    expect(items).toHaveLength(1);
    expect(items[0]).toMatchObject({ summary: SUMMARY_CLIENT, line: 1, lastLine: 7 });
  });

  it('give the time and the name of the SMMU', () => {
    const one = (line: string): Item => explainText(line).items[0];
    const error = 'CMDQ timeout';
    expect(one(`[    2.387067] arm-smmu-v3 a.smmu: ${error}`)).toMatchObject({
      time: '2.387067',
      smmu: 'a.smmu',
    });
    expect(one(`3,412,2387067,-;arm-smmu-v3 a.smmu: ${error}`).time).toBe('2.387067');
    expect(one(`Mar 04 12:00:00 host kernel: arm-smmu-v3 a.smmu: ${error}`).time).toBe('Mar 04 12:00:00');
    expect(one(`[Tue Mar  4 12:00:00 2025] arm-smmu-v3 a.smmu: ${error}`).time).toBe(
      'Tue Mar  4 12:00:00 2025',
    );
  });

  it('of newer kernels are read from the decoded lines alone too', () => {
    const { items, problems } = explainText(driver(DECODED));
    expect(problems).toEqual([]);
    expect(items[0]).toMatchObject({ summary: SUMMARY_CLIENT, line: 1, lastLine: 2 });
    const fetch = 'event: F_CD_FETCH client: (unassigned sid) sid: 0x30 ssid: 0x5 fetch_addr: 0x1ffffffc0';
    const [item] = explainText(driver([fetch])).items;
    expect(item.summary).toContain('the read of 0x1ffffffc0 was aborted');
    expect(item.summary).toContain('StreamID 0x30, SubstreamID 0x5');
    expect(item.details.join(' ')).toContain('No device that Linux knows has StreamID 0x30');
    const stall = [
      'event: F_PERMISSION client: 0000:01:00.0 sid: 0x100 ssid: 0x1 iova: 0x5000 ipa: 0x6000',
      'priv inst read s2 "Stage 1 translation table fetch" ttd_read stall stag: 0x12',
    ];
    const [permission] = explainText(driver(stall)).items;
    expect(permission.summary).toContain('privileged instruction read of IOVA 0x5000 by 0000:01:00.0');
    expect(permission.summary).toContain('IPA 0x6000');
    expect(permission.details.join(' ')).toContain('STAG 0x12');
  });
});

describe('a client that is named once', () => {
  it('is known in the raw events of the same SMMU', () => {
    const text = `${driver([...RAW, ...DECODED])}\n${driver(RAW)}\n${driver(RAW, 'other.smmu')}`;
    expect(explainText(text).items.map(({ summary, times }) => [summary, times])).toEqual([
      [SUMMARY_CLIENT, 2],
      [SUMMARY_RAW, 1],
    ]);
  });
});

describe('lines of several printers', () => {
  it('of two SMMUs do not mix', () => {
    const other = RAW.map((line) => line.replace('0x0000000800000010', '0x0000001000000010'));
    const text = RAW.flatMap((line, i) => [
      `[    2.0] arm-smmu-v3 one.smmu: ${line}`,
      '[    2.0] usb 1-1: new high-speed USB device',
      `[    2.0] arm-smmu-v3 two.smmu: ${other[i]}`,
    ]).join('\n');
    const { items, problems } = explainText(text);
    expect(problems).toEqual([]);
    expect(items.map(({ smmu, summary }) => [smmu, /StreamID (\w+)/.exec(summary)?.[1]])).toEqual([
      ['one.smmu', '0x8'],
      ['two.smmu', '0x10'],
    ]);
  });

  const gerror = [
    'unexpected global error reported (0x00000001), this could be serious',
    'CMDQ error (cons 0x01000040): Illegal command',
    'skipping command in error state:',
    '\t0x0000000800000403',
    '\t0x0000000000000001',
  ];

  it('of the event thread and the error interrupt do not mix', () => {
    const text = driver([...RAW.slice(0, 3), ...gerror, ...RAW.slice(3)]);
    const { items, problems } = explainText(text);
    expect(problems).toEqual([]);
    expect(items.map(({ name }) => name)).toEqual([
      'F_TRANSLATION',
      'CMDQ_ERR',
      'CERROR_ILL',
      'CMD_CFGI_STE',
    ]);
    expect(items[0].summary).toBe(SUMMARY_RAW);
    expect(items[2].summary).toBe(
      'The command queue stopped at entry 0x40 (index and wrap bit): the SMMU calls a command illegal.',
    );
    expect(items[3]).toMatchObject({
      severity: 'error',
      summary:
        'Linux replaced a command by a CMD_SYNC, so this was not done: drops the cached STE of StreamID 0x8 and its CDs.',
    });
    expect(items[3].details[0]).toContain('SSec=1 is illegal');
  });

  it('are told apart by the caller, if the kernel gives it', () => {
    const line = (caller: string, text: string): string => `[    2.0][ ${caller}] arm-smmu-v3 a: ${text}`;
    const text = [
      ...RAW.slice(0, 2).map((raw) => line('  T12', raw)),
      line('   C1', gerror[2]),
      line('  T12', RAW[2]),
      line('   C1', gerror[3]),
      line('  T12', RAW[3]),
      line('   C1', gerror[4]),
      line('  T12', RAW[4]),
    ].join('\n');
    const { items, problems } = explainText(text);
    expect(problems).toEqual([]);
    expect(items.map(({ name }) => name)).toEqual(['F_TRANSLATION', 'CMD_CFGI_STE']);
    expect(items[0].summary).toBe(SUMMARY_RAW);
  });
});

describe('other messages of the driver', () => {
  it.each<[string, string, RegExp]>([
    [
      'unexpected global error reported (0x00000004), this could be serious',
      'EVENTQ_ABT_ERR',
      /could not be written/,
    ],
    ['EVTQ write aborted -- events may have been lost', 'EVENTQ_ABT_ERR', /could not be written/],
    ['PRIQ write aborted -- events may have been lost', 'PRIQ_ABT_ERR', /page request/],
    ['CMDQ MSI write aborted', 'MSI_CMDQ_ABT_ERR', /MSI of CMD_SYNC/],
    ['EVTQ overflow detected -- events lost', 'EVTQ overflow', /events were lost/],
    ['CMDQ error (cons 0x02000001): Abort on command fetch', 'CERROR_ABT', /could not read a command/],
    ['CMDQ error (cons 0x03000001): ATC invalidate timeout', 'CERROR_ATC_INV_SYNC', /did not answer an ATS/],
    ['CMDQ error (cons 0x00000001): No error', 'CERROR_NONE', /no error is given/],
    ['CMDQ error (cons 0x7f000001): Unknown', 'CERROR', /does not define \(Unknown\)/],
    [
      'CMD_SYNC timeout at 0x00000012 [hwprod 0x00000013, hwcons 0x00000012]',
      'CMD_SYNC timeout',
      /within a second/,
    ],
    ['CMDQ timeout', 'CMDQ timeout', /stayed full/],
    ['device has entered Service Failure Mode!', 'SFM_ERR', /Service Failure Mode/],
    ['SMMU currently enabled! Resetting...', 'enabled at probe', /already translating/],
    ['failed to enable event queue', 'enable', /event queue/],
    ['unknown/unsupported TT endianness!', 'IDR0', /read as ones/],
    ['something new in kernel 9.1', 'other', /The driver says: something new in kernel 9.1/],
  ])('%s', (line, name, summary) => {
    const { items, problems } = explainText(driver([line]));
    expect(problems).toEqual([]);
    expect(items[0].name).toBe(name);
    expect(items[0].summary).toMatch(summary);
  });

  it('tell of events that were not printed', () => {
    const text = `[    9.0] arm_smmu_evtq_thread: 123 callbacks suppressed\n${driver(RAW)}`;
    expect(explainText(text).items.map(({ name }) => name)).toEqual(['suppressed', 'F_TRANSLATION']);
    expect(explainText(text).items[0].summary).toContain(
      '123 more events were taken from the queue and not printed',
    );
  });

  it('tell of page requests', () => {
    const [item] = explainText(
      driver([
        'unexpected PRI request received:',
        '\tsid 0x00000108.0x00000: [7L] unprivileged RW access at iova 0x0000000012345000',
      ]),
    ).items;
    expect(item).toMatchObject({ kind: 'page-request', line: 2 });
    expect(item.summary).toContain('asks for read and write access to the page at IOVA 0x12345000');
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

describe('any text at all', () => {
  /** Reproducible pseudo-random 32-bit numbers (xorshift). */
  function randomFrom(seed: number): () => number {
    let state = seed | 0;
    return () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return state >>> 0;
    };
  }

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
