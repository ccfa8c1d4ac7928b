import { describe, expect, it } from 'vitest';

import { AcpiError } from '../../src/firmware/acpi-table.ts';
import {
  type Iort,
  IORT_NODE,
  memoryAccessOf,
  readIort,
  withForcedWriteBack,
  writeIort,
} from '../../src/firmware/iort.ts';

/** The table that QEMU 11.1.3 gives a machine with two SMMUv3s, as its Linux shows it in /sys/firmware/acpi/tables. */
const QEMU_IORT = Uint8Array.from(
  Buffer.from(
    '494f52546c0100000588424f434853204258504320202020010000004258504301000000040000003000000000000000' +
      '001800010000000000000000000000000100000000000000045800040100000001000000440000000000000c00000000' +
      '010000000000000000000000000000000000000090000000910000009300000092000000000000000000000000000000' +
      'ffff0000000000003000000000000000045800040200000001000000440000000000020c000000000100000000000000' +
      '00000000000000000000000094000000950000009700000096000000000000000000000000000000ffff000000000000' +
      '300000000000000002740003030000000400000024000000010000000000000300000000000000004000000000000000' +
      'ff00000000000000480000000000000000200000ff01000000200000a00000000000000000010000ff1e000000010000' +
      '300000000000000000220000ffdd0000002200003000000000000000',
    'hex',
  ),
);

/** Offsets of that table's parts, as iasl shows them. */
const AT = { oemRevision: 24, nodeCount: 36, firstNode: 40, rootComplex: 0xf8, memoryFlags: 0x10f } as const;

/** A change with the checksum put right again. */
function changed(change: (view: DataView) => void): Uint8Array {
  const bytes = QEMU_IORT.slice();
  change(new DataView(bytes.buffer));
  bytes[9] = 0;
  bytes[9] = -bytes.reduce((total, byte) => total + byte, 0) & 0xff;
  return bytes;
}

describe('a table is refused', () => {
  it.each([
    ['that is too short for a header', QEMU_IORT.slice(0, 35)],
    ['that is cut', QEMU_IORT.slice(0, -1)],
    ['whose checksum is wrong', QEMU_IORT.map((byte, i) => (i === 100 ? byte ^ 1 : byte))],
    ['of another kind', changed((view) => view.setUint8(0, 0x4a))],
    ['that is shorter than its header', changed((view) => view.setUint32(4, 35, true))],
    ['with more nodes than fit', changed((view) => view.setUint32(AT.nodeCount, 5, true))],
    ['with ever so many nodes', changed((view) => view.setUint32(AT.nodeCount, 0xffff_ffff, true))],
    ['whose nodes begin beyond its end', changed((view) => view.setUint32(AT.firstNode, 0x16c, true))],
    ['whose nodes begin far away', changed((view) => view.setUint32(AT.firstNode, 0xffff_ffff, true))],
    ['with a node of no bytes', changed((view) => view.setUint16(AT.rootComplex + 1, 0, true))],
    ['with a node that is too long', changed((view) => view.setUint16(AT.rootComplex + 1, 0x75, true))],
    ['with more mappings than fit', changed((view) => view.setUint32(AT.rootComplex + 8, 5, true))],
    ['with ever so many mappings', changed((view) => view.setUint32(AT.rootComplex + 8, 0xffff_ffff, true))],
    ['with mappings in a node’s header', changed((view) => view.setUint32(AT.rootComplex + 12, 12, true))],
    ['with mappings to no node', changed((view) => view.setUint32(0x128, 0x49, true))],
  ])('%s', (_, bytes) => {
    expect(() => readIort(bytes)).toThrow(AcpiError);
  });
});

describe('QEMU’s table', () => {
  const iort = readIort(QEMU_IORT);

  it('has an ITS, two SMMUs and a root complex', () => {
    expect(iort.nodes.map(({ type }) => type)).toEqual([
      IORT_NODE.ItsGroup,
      IORT_NODE.SmmuV3,
      IORT_NODE.SmmuV3,
      IORT_NODE.RootComplex,
    ]);
  });

  it('sends the requesters of each bus to an SMMU, and the rest to the ITS', () => {
    expect(iort.nodes[3]?.mappings).toEqual([
      { inputBase: 0, count: 0x100, outputBase: 0, target: 1, flags: 0 },
      { inputBase: 0x2000, count: 0x200, outputBase: 0x2000, target: 2, flags: 0 },
      { inputBase: 0x100, count: 0x1f00, outputBase: 0x100, target: 0, flags: 0 },
      { inputBase: 0x2200, count: 0xde00, outputBase: 0x2200, target: 0, flags: 0 },
    ]);
  });

  it('does not say that write-back is forced', () => {
    expect(iort.nodes.map(memoryAccessOf)).toEqual([0, 0, 0, 3]);
  });

  it('is the same again when it is written', () => {
    expect(writeIort(iort)).toEqual(QEMU_IORT);
  });

  it('differs in three bytes when write-back is forced: the flags, the OEM revision and the checksum', () => {
    const written = writeIort(withForcedWriteBack(iort));
    const differences = [...written.keys()].filter((at) => written[at] !== QEMU_IORT[at]);
    expect(differences).toEqual([9, AT.oemRevision, AT.memoryFlags]);
    expect(written[AT.memoryFlags]).toBe(7);
    expect(written[AT.oemRevision]).toBe(2);
    expect(readIort(written)).toEqual(withForcedWriteBack(iort));
  });
});

describe('writing', () => {
  const header: Iort['header'] = {
    signature: 'IORT',
    revision: 5,
    oemId: 'A',
    oemTableId: 'B',
    oemRevision: 1,
    creatorId: 'C',
    creatorRevision: 1,
  };
  const node = {
    type: IORT_NODE.ItsGroup,
    revision: 1,
    identifier: 0,
    data: new Uint8Array(8),
    mappings: [],
  };

  it('refuses a mapping to a node that is not there', () => {
    const mappings = [{ inputBase: 0, count: 1, outputBase: 0, target: 1, flags: 0 }];
    expect(() => writeIort({ header, nodes: [{ ...node, mappings }] })).toThrow(AcpiError);
  });

  it('refuses a node that is too large', () => {
    expect(() => writeIort({ header, nodes: [{ ...node, data: new Uint8Array(0x10000) }] })).toThrow(
      AcpiError,
    );
  });

  it('refuses a name that does not fit', () => {
    expect(() => writeIort({ header: { ...header, oemId: 'sevenxx' }, nodes: [] })).toThrow(AcpiError);
  });

  it('makes a table of no nodes', () => {
    expect(readIort(writeIort({ header, nodes: [] }))).toEqual({ header, nodes: [] });
  });

  it('can map the whole range of IDs', () => {
    const mappings = [{ inputBase: 0, count: 2 ** 32, outputBase: 0, target: 0, flags: 0 }];
    const iort = { header, nodes: [{ ...node, mappings }] };
    expect(readIort(writeIort(iort))).toEqual(iort);
  });
});
