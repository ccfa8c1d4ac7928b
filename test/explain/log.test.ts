import { describe, expect, it } from 'vitest';
import { explainText, type Item } from '../../src/explain/text.ts';
import { driver, RAW, DECODED, SUMMARY_RAW, SUMMARY_CLIENT } from './driver-lines.ts';

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
