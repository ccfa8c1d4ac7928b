import { describe, expect, it } from 'vitest';
import { explainCd } from '../../src/explain/cd.ts';
import { explainCommand } from '../../src/explain/command.ts';
import { decode } from '../../src/explain/decode.ts';
import { explainEvent } from '../../src/explain/event.ts';
import type { Explanation } from '../../src/explain/explanation.ts';
import { explainGerror } from '../../src/explain/gerror.ts';
import { explainPageRequest } from '../../src/explain/page-request.ts';
import { explainSte } from '../../src/explain/ste.ts';
import { address, bits } from '../../src/bits/field.ts';
import { COMMANDS } from '../../src/spec/commands.ts';
import { EVENTS } from '../../src/spec/events.ts';

/** 64-bit words to 32-bit ones. */
const words = (...dwords: bigint[]): Uint32Array =>
  Uint32Array.from(dwords.flatMap((dword) => [Number(dword & 0xffff_ffffn), Number(dword >> 32n)]));

const text = (explanation: Explanation): string =>
  [explanation.summary, ...explanation.details, ...explanation.checks].join(' ');

/** Flags of the second doubleword of a translation fault, as the Linux driver masks them. */
const STALL = 1n << 31n;
const PNU = 1n << 33n;
const IND = 1n << 34n;
const RNW = 1n << 35n;
const S2 = 1n << 39n;
const CLASS = (n: bigint): bigint => n << 40n;
const TTRNW_WRITE = 0n;

describe('decode', () => {
  it('names every field with its bits, and keeps addresses in place', () => {
    const layout = { V: bits(0), Size: bits(63, 59), Ptr: address(55, 6) };
    expect(decode(layout, words(0x4003_8000_0000_1fc1n))).toEqual([
      { name: 'V', bits: '[0]', value: '0x1', set: true },
      { name: 'Size', bits: '[63:59]', value: '0x8', set: true },
      { name: 'Ptr', bits: '[55:6]', value: '0x3800000001fc0', set: true },
    ]);
  });
});

describe('an event record', () => {
  it('that is empty or unknown is still said to be so', () => {
    expect(explainEvent(new Uint32Array(0))).toMatchObject({ name: 'UNKNOWN', severity: 'error' });
    expect(explainEvent(words(0x0000_0008_0000_0030n, 0n, 0n, 0n)).summary).toBe(
      'Event 0x30 for the device with StreamID 0x8 is not one that the architecture defines.',
    );
    expect(explainEvent(words(0x0000_0008_0000_00e3n, 0n, 0n, 0n)).summary).toContain(
      "is this implementation's own",
    );
  });

  it('that is cut off says what is there and not more', () => {
    const explained = explainEvent(words(0x0000_0008_0000_0010n));
    expect(explained.summary).toContain('transaction of an IOVA that the text does not give');
    expect(explained.fields.map(({ name }) => name)).toEqual(['EventID', 'SSV', 'SubstreamID', 'StreamID']);
  });

  it('E_PAGE_REQUEST is a hint, and what cannot be decoded of it is said', () => {
    const explained = explainEvent(words((0x8n << 32n) | 0x24n, 0xffn, 0x1234_5000n, 0n));
    expect(explained.severity).toBe('info');
    expect(text(explained)).toMatch(/0x12345000.*only a hint.*Span.*uX.*not known here/u);
    expect(explained.fields.map(({ name }) => name)).not.toContain('Span');
  });

  it('of each type has a sentence, its clause and the fields of its layout', () => {
    for (const { name, type, clause, fields } of EVENTS) {
      const explained = explainEvent(words((0x20n << 32n) | BigInt(type), CLASS(2n), 0x1000n, 0n));
      expect(explained).toMatchObject({ kind: 'event', name, clause });
      expect(explained.summary).toMatch(/^[A-Z].*\.$/);
      expect(explained.summary).toContain('StreamID 0x20');
      expect(explained.fields.map((field) => field.name)).toEqual([...fields]);
      for (const line of [...explained.details, ...explained.checks]) expect(line).toMatch(/^[A-Z].*[.?)]$/);
    }
  });

  it.each<[string, bigint, string]>([
    ['an unprivileged data write', 0n, 'An unprivileged data write of IOVA 0x1234000 by'],
    ['an unprivileged data read', RNW, 'An unprivileged data read of IOVA 0x1234000 by'],
    ['a privileged instruction read', PNU | IND | RNW, 'A privileged instruction read of IOVA 0x1234000 by'],
  ])('tells %s', (_, flags, expected) => {
    const explained = explainEvent(words(0x0000_0020_0000_0010n, flags | CLASS(2n), 0x123_4000n, 0n));
    expect(explained.summary).toContain(expected);
    expect(explained.summary).toContain('was terminated: stage 1 has no mapping for it.');
  });

  it('says that a stalled transaction waits for CMD_RESUME', () => {
    const explained = explainEvent(words(0x20_0000_0010n, STALL | 0x7n | CLASS(2n), 0x1000n, 0n));
    expect(explained.summary).toContain('is stalled');
    expect(text(explained)).toContain('waits (STAG 0x7) until software answers with CMD_RESUME');
  });

  it.each<[bigint, string, string]>([
    [0n, 'reading the context descriptor', 'S1ContextPtr'],
    [1n, 'reading a stage 1 translation table', 'TTBx'],
    [2n, 'translating the address that stage 1 gave', 'outside RAM'],
  ])('of stage 2 with CLASS=%i says what the SMMU was doing', (cls, doing, check) => {
    const explained = explainEvent(words(0x20_0000_0010n, S2 | CLASS(cls), 0x1000n, 0x9_8765_4000n));
    expect(explained.summary).toContain('stage 2 has no mapping for IPA 0x987654000.');
    expect(text(explained)).toContain(doing);
    expect(text(explained)).toContain(check);
    expect(text(explained)).toContain('iommufd does not pass it on to a guest');
  });

  it('knows a hardware update of flags that stage 2 refuses', () => {
    const flags = S2 | CLASS(1n) | TTRNW_WRITE;
    expect(text(explainEvent(words(0x20_0000_0013n, flags, 0x1000n, 0x5000n)))).toContain(
      'updating a stage 1 translation table',
    );
    expect(text(explainEvent(words(0x20_0000_0013n, flags | (1n << 44n), 0x1000n, 0x5000n)))).toContain(
      'reading a stage 1 translation table',
    );
  });

  it('of F_PERMISSION says which permission was missing', () => {
    const one = (flags: bigint): string =>
      text(explainEvent(words(0x20_0000_0013n, flags | CLASS(2n), 0x1000n, 0n)));
    expect(one(0n)).toContain('does not let it be written');
    expect(one(0n)).toContain('DMA_TO_DEVICE');
    expect(one(RNW)).toContain('does not let it be read');
    expect(one(RNW | IND)).toContain('does not let it be executed');
  });

  it.each<[string, bigint, RegExp]>([
    ['the MSI window', 0x0809_0040n, /MSI doorbells.*one to one.*RMR/],
    ['address 0', 0n, /next to zero/],
    ['a kernel pointer', 0xffff_8000_1234_5678n, /kernel virtual address/],
    ['more than 48 bits', 0x1234_5678_9abc_0000n, /more than 48 bits/],
    ['the top of the lower 4 GiB', 0xffff_f000n, /downwards from 4 GiB.*dma_unmap/],
    ['an address without any look', 0x1_2345_6000n, /did not map, or not any more/],
  ])('gives a hint for %s first', (_, iova, hint) => {
    const explained = explainEvent(words(0x20_0000_0010n, CLASS(2n), iova, 0n));
    expect(explained.checks[0]).toMatch(hint);
  });

  it('gives a hint for a doorbell that stage 2 does not map', () => {
    const explained = explainEvent(words(0x20_0000_0010n, S2 | CLASS(2n), 0x809_0040n, 0x809_0000n));
    expect(explained.checks[0]).toContain('where the host maps the doorbells of MSIs');
  });

  it('gives the address of a fetch that aborted', () => {
    for (const type of [0x03n, 0x09n, 0x25n])
      expect(explainEvent(words((8n << 32n) | type, 0n, 0n, 0x4_0000_0040n)).summary).toContain(
        '0x400000040',
      );
    const walk = explainEvent(words(0x8_0000_000bn, CLASS(1n), 0x5000n, 0x4_0000_0048n));
    expect(walk.summary).toContain('IOVA 0x5000');
    expect(walk.summary).toContain('0x400000048');
  });

  it('of C_BAD_CD speaks of domain switches, of C_BAD_STREAMID of firmware', () => {
    expect(text(explainEvent(words(0x8_0000_000an, 0n, 0n, 0n)))).toContain('from one domain to another');
    expect(text(explainEvent(words(0x8_0000_0002n, 0n, 0n, 0n)))).toContain('iommu-map');
  });

  it('names the SubstreamID if it has one, and in C_BAD_SUBSTREAMID always', () => {
    const ssv = 1n << 11n;
    const one = (low: bigint): string => explainEvent(words((8n << 32n) | low, 0n, 0n, 0n)).summary;
    expect(one(0x10n | (5n << 12n))).not.toContain('SubstreamID');
    expect(one(0x10n | ssv | (5n << 12n))).toContain('StreamID 0x8, SubstreamID 0x5');
    expect(one(0x08n | (5n << 12n))).toContain('StreamID 0x8, SubstreamID 0x5');
  });

  it('names the device: as the driver did, by its requester ID, or not at all', () => {
    const record = words(0x0000_0108_0000_0004n, 0n, 0n, 0n);
    expect(explainEvent(record, { client: '0000:01:01.0' }).summary).toContain(
      '0000:01:01.0 (StreamID 0x108)',
    );
    expect(text(explainEvent(record))).toContain('this is the PCI function 0000:01:01.0');
    const functions = new Map([['0000:01:01.0', 'nvme 0000:01:01.0']]);
    expect(text(explainEvent(record, { functions }))).toContain('this is nvme 0000:01:01.0');
    expect(text(explainEvent(record, { unassigned: true }))).toContain('No device that Linux knows');
    expect(text(explainEvent(words(0x1_0000_0000_0004n)))).not.toContain('PCI function');
  });
});

describe('a Stream Table Entry', () => {
  it('that is empty, invalid or reserved is said to be so', () => {
    expect(explainSte(new Uint32Array(0)).checks[0]).toContain('never written');
    expect(explainSte(words(0x4403_800an)).summary).toContain('not valid (V=0)');
    expect(text(explainSte(words(0b0111n)))).toContain('Config=0x3 is reserved and acts as abort');
    expect(text(explainSte(words(0b1101n, 3n << 14n, 3n << 46n)))).toContain('S2TG=3 is reserved');
  });

  it.each([
    [0b0001n, 'blocked: its transactions are aborted, and no event tells of it'],
    [0b1001n, 'bypasses translation'],
    [0b1011n, 'translated by stage 1.'],
    [0b1101n, 'translated by stage 2.'],
    [0b1111n, 'stage 1 and then by stage 2'],
  ])('with low bits %i says what happens to the stream', (low, expected) => {
    expect(explainSte(words(low)).summary).toContain(expected);
  });

  it('as Linux writes it for a DMA domain', () => {
    const explained = explainSte(words(0x4403_800bn, 0xd6n));
    expect(text(explained)).toBe(
      'The stream is translated by stage 1. Stage 1 has one context descriptor, at 0x44038000; there are no substreams.',
    );
    expect(explained.fields.find(({ name }) => name === 'S1CSH')).toMatchObject({
      bits: '[71:70]',
      value: '0x3',
    });
  });

  it('with substreams and ATS', () => {
    const explained = explainSte(words((10n << 59n) | (2n << 4n) | 0x4403_800bn, 1n | (1n << 28n)));
    expect(text(explained)).toContain(
      'up to 2^10 context descriptors in two levels with leaves of 64 KiB at 0x44038000; traffic without a SubstreamID bypasses stage 1',
    );
    expect(text(explained)).toContain('The device may use ATS.');
  });

  it('of a nested stream', () => {
    // S2VMID 7, T0SZ 24, SL0 1, TG 4K, PS 5, AA64, PTW, R; table at 0x80000000.
    const w2 = 7n | (24n << 32n) | (1n << 38n) | (5n << 48n) | (1n << 51n) | (1n << 54n) | (1n << 58n);
    const explained = explainSte(words(0x4403_800fn, 1n << 25n, w2, 0x8000_0000n));
    expect(text(explained)).toContain('That pointer is an IPA: stage 2 translates it.');
    expect(text(explained)).toContain(
      'Stage 2 of VMID 0x7 takes IPAs of 40 bits to addresses of 48 bits, with a granule of 4 KiB; its tables start at 0x80000000, level 1.',
    );
    expect(text(explained)).toContain('Its faults abort it and are recorded (S2S, S2R).');
    expect(explained.checks).toEqual([]);
  });
});

describe('a Context Descriptor', () => {
  it('that is empty or invalid is said to be so', () => {
    expect(explainCd(new Uint32Array(0)).checks[0]).toContain('never written');
    expect(explainCd(words(0x0002_e205_4000_3510n)).summary).toContain('not valid (V=0)');
    expect(text(explainCd(words(0x0002_e205_c000_35d0n)))).toContain(
      'granule of the lower half is a reserved value',
    );
  });

  it('as Linux writes it for a DMA domain', () => {
    const explained = explainCd(words(0x0002_e205_c000_3510n, 0x4400_7000n, 0n, 0xf404_ff44n));
    expect(text(explained)).toBe(
      'The descriptor is valid: stage 1 translations of ASID 0x2. ' +
        'The lower half has 48 bits and pages of 4 KiB; its tables start at 0x44007000. ' +
        'The upper half of addresses is not translated (F_TRANSLATION). ' +
        'Addresses that come out have at most 48 bits (IPS). ' +
        'Faults abort the transaction and are recorded (S, A, R).',
    );
  });

  it('that hides its faults is suspicious', () => {
    expect(text(explainCd(words(0x0002_c205_c000_3510n)))).toContain('leave no trace in the event queue');
  });
});

describe('a command', () => {
  it('of each opcode has a sentence', () => {
    for (const { name, opcode, clause } of COMMANDS) {
      const explained = explainCommand(words(BigInt(opcode), 0n));
      expect(explained).toMatchObject({ kind: 'command', name, clause });
      expect(explained.summary).toMatch(/^[A-Z].*\.$/);
    }
  });

  it.each<[bigint, bigint, string]>([
    [0xffn, 0n, 'Opcode 0xff is not a command that the architecture defines.'],
    [0x8_0000_0003n, 1n, 'Drops the cached STE of StreamID 0x8 and its CDs.'],
    [0x8_0000_0003n, 0n, 'Drops the cached STE of StreamID 0x8 and its CDs, and its first-level descriptor.'],
    [0x4n, 31n, 'Drops all cached configuration, of all StreamIDs (CMD_CFGI_ALL).'],
    [0x13_0000_0004n, 3n, 'Drops cached configuration of StreamIDs 0x10..0x1f.'],
    [
      0x0005_0000_0000_0012n,
      0x1000_0001n,
      'Drops stage 1 translations of ASID 0x5, VMID 0x0: leaf entries for address 0x10000000.',
    ],
    [
      0x0005_0000_0000_7012n | (2n << 20n),
      0x1000_0000n | (1n << 10n) | (3n << 8n),
      'Drops stage 1 translations of ASID 0x5, VMID 0x0: entries of all levels for 0x10000000..0x1001ffff (32 pages of 4 KiB, leaf at level 3).',
    ],
    [
      0x8_0000_0040n,
      52n,
      'Tells the device of StreamID 0x8 to forget everything in its address translation cache (ATS).',
    ],
    [
      0x2046n,
      0n,
      'Waits until all commands before it have taken effect and wakes processors that wait for an event (SEV).',
    ],
    [
      0xa_0000_1046n,
      0x4400_1000n,
      'Waits until all commands before it have taken effect and writes 0xa to 0x44001000.',
    ],
    [0x3046n, 0n, 'Waits until all commands before it have taken effect (CS=3 is reserved: CERROR_ILL).'],
  ])('%# says what it does', (w0, w1, expected) => {
    expect(explainCommand(words(w0, w1)).summary).toBe(expected);
  });

  it('says why an SMMU might call it illegal', () => {
    expect(text(explainCommand(words(0x8_0000_0403n, 0n)))).toContain('SSec=1 is illegal');
    expect(text(explainCommand(words(0x12n, 1n << 10n)))).toContain('reserved with range invalidation');
    expect(text(explainCommand(words(0x20n, 0n)))).toContain('IDR0.HYP');
  });
});

describe('global errors', () => {
  it('are named one by one', () => {
    expect(explainGerror(0).summary).toBe('No global error is active.');
    expect(explainGerror(4).summary).toBe(
      'A global error: an event record could not be written to memory, and no more are until this is acknowledged (EVENTQ_ABT_ERR).',
    );
    expect(explainGerror(0x101).summary).toContain('2 global errors: the command queue stopped at a command');
    expect(explainGerror(0x8000_0000).summary).toContain('bits 0x80000000 are set');
  });
});

describe('a page request', () => {
  it('says what is asked for, and whether an answer is due', () => {
    const w0 = 8n | (3n << 60n) | (1n << 62n);
    const explained = explainPageRequest(words(w0, 0x1234_5000n | 7n));
    expect(explained.summary).toBe(
      'The device with StreamID 0x8 asks for read and write access to the page at IOVA 0x12345000.',
    );
    expect(text(explained)).toContain('it wants an answer');
    expect(explainPageRequest(words(8n | (5n << 32n) | (1n << 62n) | (1n << 63n), 0n)).name).toBe(
      'Stop Marker',
    );
  });
});
