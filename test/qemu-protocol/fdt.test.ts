import { execFileSync, spawnSync } from 'node:child_process';

import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { QemuError } from '../../src/qemu/errors.ts';
import {
  cells,
  cellsOf,
  type Fdt,
  findCompatible,
  findNode,
  type FdtNode,
  readFdt,
  strings,
  stringsOf,
  writeFdt,
} from '../../src/qemu/fdt.ts';

const node = (name: string, properties: [string, Uint8Array][] = [], children: FdtNode[] = []): FdtNode => ({
  name,
  properties: new Map(properties),
  children,
});

const tree = (root: FdtNode): Fdt => ({ root, reservations: [], bootCpu: 0 });

/** Big-endian words, as the Devicetree Specification lays them out. */
const words = (...values: number[]): Uint8Array => cells(...values);

/**
 * A blob written by hand from chapter 5 of the specification: / { a = <0x11223344>; child@1 { b = "hi"; e; }; } with one
 * reservation of 4 KiB at 4 GiB, to be started on CPU 3.
 */
function handMade(): Uint8Array {
  const blob = new Uint8Array(160);
  blob.set(
    words(
      ...[
        [0xd00dfeed, 160, 72, 152, 40, 17, 16, 3, 6, 80], // header
        [1, 0, 0, 0x1000, 0, 0, 0, 0], // reservations, at 40
        [1, 0], // at 72: begin ""
        [3, 4, 0, 0x1122_3344], // at 80: a
        [4, 1, 0x6368_696c, 0x6440_3100], // nop, begin "child@1"
        [3, 3, 2, 0x6869_0000], // b
        [3, 0, 4], // e
        [2, 2, 9], // both end, and the whole
      ].flat(),
    ),
  );
  blob.set(new TextEncoder().encode('a\0b\0e\0'), 152);
  return blob;
}

const HAS_DTC = spawnSync('dtc', ['--version']).status === 0;

describe('reading', () => {
  it('finds what the specification puts into a blob', () => {
    const fdt = readFdt(handMade());
    expect(fdt.bootCpu).toBe(3);
    expect(fdt.reservations).toEqual([{ address: 0x1_0000_0000n, sizeBytes: 0x1000n }]);
    expect(cellsOf(fdt.root.properties.get('a'))).toEqual([0x1122_3344]);
    const child = findNode(fdt, '/child@1');
    expect(stringsOf(child?.properties.get('b'))).toEqual(['hi']);
    expect(child?.properties.get('e')).toEqual(new Uint8Array(0));
    expect(findNode(fdt, '/child')).toBe(child);
    expect(findNode(fdt, '/other')).toBeUndefined();
  });

  it('copies, so that the blob may change afterwards, a Buffer too', () => {
    const blob = Buffer.from(handMade());
    const fdt = readFdt(blob);
    blob.fill(0xff);
    expect(cellsOf(fdt.root.properties.get('a'))).toEqual([0x1122_3344]);
  });

  it('refuses every blob that is cut short', () => {
    const blob = handMade();
    for (let length = 0; length < 160; length++) {
      expect(() => readFdt(blob.slice(0, length)), `${length} bytes`).toThrow(QemuError);
    }
  });

  it.each([
    ['a wrong magic', 0, 0xd00dfeee],
    ['a size beyond the blob', 4, 0xffff_ffff],
    ['a structure beyond the blob', 8, 0xffff_fff0],
    ['a structure that is not aligned', 8, 73],
    ['strings beyond the blob', 12, 0xffff_ff00],
    ['reservations beyond the blob', 16, 0xffff_fff0],
    ['a version of the future', 24, 18],
    ['a structure without an end', 36, 76],
    ['an unknown token', 72, 7],
    ['a property of 4 GiB', 84, 0xffff_ffff],
    ['a property name outside the strings', 88, 6],
    ['a property in front of the root', 72, 3],
    ['an end without a beginning', 72, 2],
  ])('refuses %s', (_, offset, value) => {
    const blob = handMade();
    new DataView(blob.buffer).setUint32(offset, value);
    expect(() => readFdt(blob)).toThrow(QemuError);
  });

  it('never does anything worse than refuse, whatever the bytes are', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(159), fc.nat(255)), { maxLength: 12 }), (changes) => {
        const blob = handMade();
        for (const [at, value] of changes) blob[at] = value;
        try {
          readFdt(blob);
        } catch (error) {
          expect(error).toBeInstanceOf(QemuError);
        }
      }),
      { numRuns: 5000 },
    );
  });

  it('refuses a tree that is deeper than any real one', () => {
    let deep = node('x');
    for (let i = 0; i < 100; i++) deep = node('x', [], [deep]);
    expect(() => readFdt(writeFdt(tree(deep)))).toThrow(/deeper/);
  });
});

describe('writing', () => {
  const name = fc.stringMatching(/^[a-z0-9,._+?#-]{1,31}$/);
  const nodes = (children: fc.Arbitrary<FdtNode[]>): fc.Arbitrary<FdtNode> =>
    fc.record({
      name: fc.stringMatching(/^[a-z][a-z0-9,._+-]{0,30}(@[0-9a-f]{1,16})?$/),
      properties: fc
        .array(fc.tuple(name, fc.uint8Array({ maxLength: 40 })), { maxLength: 5 })
        .map((entries) => new Map(entries)),
      children,
    });
  const few = (node: fc.Arbitrary<FdtNode>): fc.Arbitrary<FdtNode[]> => fc.array(node, { maxLength: 3 });
  const anyNode = nodes(few(nodes(few(nodes(fc.constant([]))))));

  it('and reading again gives the same tree', () => {
    fc.assert(
      fc.property(anyNode, fc.nat(7), (root, bootCpu) => {
        const fdt = { root, reservations: [{ address: 0x4000_0000n, sizeBytes: 0x1000n }], bootCpu };
        expect(readFdt(writeFdt(fdt, 16))).toEqual(fdt);
      }),
    );
  });

  it('refuses a name that would end early', () => {
    expect(() => writeFdt(tree(node('a\0b')))).toThrow(QemuError);
  });

  it('loses nothing when the blob outgrows its buffer at any token', () => {
    for (let length = 4000; length <= 4104; length += 4) {
      const fdt = tree(
        node('', [['filler', new Uint8Array(length)]], [node('a', [['b', cells(1)]], [node('c')])]),
      );
      expect(readFdt(writeFdt(fdt)).root).toEqual(fdt.root);
    }
  });

  it('keeps each property name once', () => {
    const one = writeFdt(tree(node('', [['compatible', strings('x')]])));
    const two = writeFdt(
      tree(node('', [['compatible', strings('x')]], [node('y', [['compatible', strings('x')]])])),
    );
    const stringsSize = (blob: Uint8Array): number => new DataView(blob.buffer).getUint32(32);
    expect(stringsSize(one)).toBe('compatible'.length + 1);
    expect(stringsSize(two)).toBe(stringsSize(one));
  });
});

describe('looking around', () => {
  it('finds nodes by what they are compatible with, parents first', () => {
    const fdt = tree(
      node(
        '',
        [],
        [
          node(
            'a',
            [['compatible', strings('arm,gic-v3')]],
            [node('b', [['compatible', strings('x', 'arm,gic-v3')]])],
          ),
          node('c', [['compatible', strings('arm,gic-v3-its')]]),
        ],
      ),
    );
    expect(findCompatible(fdt, 'arm,gic-v3').map(({ name }) => name)).toEqual(['a', 'b']);
  });

  it('does not guess between two nodes of one name', () => {
    const fdt = tree(node('', [], [node('cpu@0'), node('cpu@1')]));
    expect(findNode(fdt, '/cpu')).toBeUndefined();
    expect(findNode(fdt, '/cpu@1')?.name).toBe('cpu@1');
  });
});

describe.skipIf(!HAS_DTC)('against dtc (needs device-tree-compiler)', () => {
  const dtc = (from: string, to: string, input: string | Uint8Array): Buffer =>
    execFileSync('dtc', ['-q', '-I', from, '-O', to, '-'], { input });

  it('reads what dtc compiles', () => {
    const source = `/dts-v1/; /memreserve/ 0x80000000 0x2000;
      / { #address-cells = <2>; soc { uart: serial@9000000 { reg = <0x0 0x9000000 0x0 0x1000>;
      compatible = "arm,pl011", "arm,primecell"; dma-coherent; }; }; };`;
    const fdt = readFdt(dtc('dts', 'dtb', source));
    expect(fdt.reservations).toEqual([{ address: 0x8000_0000n, sizeBytes: 0x2000n }]);
    const uart = findNode(fdt, '/soc/serial@9000000');
    expect(cellsOf(uart?.properties.get('reg'))).toEqual([0, 0x900_0000, 0, 0x1000]);
    expect(stringsOf(uart?.properties.get('compatible'))).toEqual(['arm,pl011', 'arm,primecell']);
    expect(uart?.properties.get('dma-coherent')).toHaveLength(0);
  });

  it('writes what dtc reads', () => {
    const fdt = tree(
      node(
        '',
        [['#size-cells', cells(2)]],
        [
          node('smmuv3@3e000000', [
            ['compatible', strings('arm,smmu-v3')],
            ['reg', cells(0, 0x3e00_0000, 0, 0x2_0000)],
            ['dma-coherent', new Uint8Array(0)],
          ]),
        ],
      ),
    );
    const source = dtc('dtb', 'dts', writeFdt(fdt)).toString();
    expect(source).toMatch(/smmuv3@3e000000 \{/);
    expect(source).toMatch(/compatible = "arm,smmu-v3";/);
    expect(source).toMatch(/reg = <0x00 0x3e000000 0x00 0x20000>;/);
    expect(source).toMatch(/dma-coherent;/);
  });

  it('gives dtc nothing to correct', () => {
    const ours = writeFdt(tree(node('', [['a', cells(1, 2, 3)]], [node('b', [['c', strings('d')]])])));
    expect(readFdt(dtc('dtb', 'dtb', ours))).toEqual(readFdt(ours));
  });
});
