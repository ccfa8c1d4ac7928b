import { beforeEach, describe, expect, it } from 'vitest';

import {
  addSmmu as addNode,
  disableUnusedDevices,
  type DeviceTreeOptions,
  hideSmmuFunction,
  LAYOUT,
  SMMU_INTID,
} from '../../src/qemu/device-tree.ts';
import { QemuError } from '../../src/qemu/errors.ts';
import { cells, cellsOf, type Fdt, findNode, type FdtNode, strings, stringsOf } from '../../src/qemu/fdt.ts';

const node = (name: string, properties: [string, Uint8Array][] = [], children: FdtNode[] = []): FdtNode => ({
  name,
  properties: new Map(properties),
  children,
});

/** What QEMU 11.1.3 says of itself with -M virt,gic-version=3,msi=gicv2m; only the nodes that matter here. */
function virtMachine(): Fdt {
  return {
    bootCpu: 0,
    reservations: [],
    root: node(
      '',
      [['interrupt-parent', cells(0x8002)]],
      [
        node('virtio_mmio@a000000', [['compatible', strings('virtio,mmio')]]),
        node('virtio_mmio@a000200', [['compatible', strings('virtio,mmio')]]),
        node('pcie@10000000', [
          [
            'ranges',
            cells(
              ...[
                [0x100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000],
                [0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000],
                [0x300_0000, 0x80, 0, 0x80, 0, 0x80, 0],
              ].flat(),
            ),
          ],
          ['reg', cells(0x40, 0x1000_0000, 0, 0x1000_0000)],
          ['msi-map', cells(0, 0x8003, 0, 0x1_0000)],
          ['bus-range', cells(0, 0xff)],
          ['compatible', strings('pci-host-ecam-generic')],
        ]),
        node(
          'intc@8000000',
          [
            ['phandle', cells(0x8002)],
            ['compatible', strings('arm,gic-v3')],
          ],
          [
            node('v2m@8020000', [
              ['phandle', cells(0x8003)],
              ['reg', cells(0, 0x802_0000, 0, 0x1000)],
              ['compatible', strings('arm,gic-v2m-frame')],
            ]),
          ],
        ),
        node('apb-pclk', [['phandle', cells(0x8000)]]),
        node('aliases', [['serial0', strings('/pl011@9000000')]]),
      ],
    ),
  };
}

/** Both halves, as a guest gets them. */
function addSmmu(tree: Fdt, options?: DeviceTreeOptions): void {
  hideSmmuFunction(tree);
  addNode(tree, options);
}

let fdt: Fdt;
beforeEach(() => {
  fdt = virtMachine();
});

const property = (path: string, name: string): Uint8Array | undefined =>
  findNode(fdt, path)?.properties.get(name);
const at = (path: string, name: string): number[] => cellsOf(property(path, name));

describe('a machine that is not as expected is refused:', () => {
  const spoil = (path: string, name: string, value: Uint8Array): void => {
    findNode(fdt, path)?.properties.set(name, value);
  };

  it.each([
    ['without PCI', () => spoil('/pcie', 'compatible', strings('x'))],
    ['without a GICv2m frame', () => spoil('/intc/v2m', 'compatible', strings('arm,gic-v3-its'))],
    ['with another GIC', () => spoil('/intc', 'compatible', strings('arm,cortex-a15-gic'))],
    [
      'with an SMMU of its own',
      () => fdt.root.children.push(node('s', [['compatible', strings('arm,smmu-v3')]])),
    ],
    ['with configuration space elsewhere', () => spoil('/pcie', 'reg', cells(0, 0x3f00_0000, 0, 0x100_0000))],
    ['without a memory window', () => spoil('/pcie', 'ranges', cells())],
    [
      'with a memory window that ends below the SMMU',
      () => spoil('/pcie', 'ranges', cells(0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x1000_0000)),
    ],
  ])('%s', (_, change) => {
    change();
    expect(() => addSmmu(fdt)).toThrow(QemuError);
  });
});

describe('the SMMU', () => {
  it('is a node that the driver of Linux matches', () => {
    addSmmu(fdt);
    expect(stringsOf(property('/smmuv3@3e000000', 'compatible'))).toEqual(['arm,smmu-v3']);
    expect(at('/smmuv3@3e000000', 'reg')).toEqual([0, 0x3e00_0000, 0, 0x2_0000]);
    expect(at('/smmuv3@3e000000', '#iommu-cells')).toEqual([1]);
    expect(property('/smmuv3@3e000000', 'dma-coherent')).toHaveLength(0);
  });

  it('has a phandle that nobody else has, and the host bridge points there', () => {
    addSmmu(fdt);
    const [phandle] = at('/smmuv3@3e000000', 'phandle');
    expect([0x8000, 0x8002, 0x8003]).not.toContain(phandle);
    // Buses behind root ports only: QEMU's own devices on bus 0 do not pass through it.
    expect(at('/pcie', 'iommu-map')).toEqual([0x100, phandle, 0x100, 0xff00]);
  });

  it('stands in a part of the memory window that PCI does not hand out', () => {
    addSmmu(fdt);
    expect(at('/pcie', 'ranges').slice(7, 14)).toEqual([
      0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2e00_0000,
    ]);
    expect(at('/pcie', 'ranges').slice(0, 7)).toEqual([0x100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000]);
    expect(at('/pcie', 'ranges').slice(14)).toEqual([0x300_0000, 0x80, 0, 0x80, 0, 0x80, 0]);
    expect(0x1000_0000 + 0x2e00_0000).toBe(LAYOUT.smmu);
  });

  it('is on a bus that the guest never scans', () => {
    addSmmu(fdt);
    expect(at('/pcie', 'bus-range')).toEqual([0, 0x7f]);
    expect(at('/pcie', 'reg')).toEqual([0x40, 0x1000_0000, 0, 0x800_0000]);
  });

  it('has edge-triggered SPIs out of the GICv2m frame, which PCI no longer gets', () => {
    addSmmu(fdt);
    expect(stringsOf(property('/smmuv3@3e000000', 'interrupt-names'))).toEqual([
      'eventq',
      'priq',
      'cmdq-sync',
      'gerror',
    ]);
    expect(at('/smmuv3@3e000000', 'interrupts')).toEqual([0, 108, 1, 0, 109, 1, 0, 110, 1, 0, 111, 1]);
    expect(at('/intc/v2m', 'arm,msi-base-spi')).toEqual([80]);
    expect(at('/intc/v2m', 'arm,msi-num-spis')).toEqual([60]);
    for (const intid of Object.values(SMMU_INTID)) {
      expect(intid).toBeGreaterThanOrEqual(80 + 60);
      expect(intid).toBeLessThan(80 + 64);
    }
  });

  it('can have message-signalled interrupts instead, and then leaves the frame alone', () => {
    addSmmu(fdt, { interrupts: 'msi' });
    expect(property('/smmuv3@3e000000', 'interrupts')).toBeUndefined();
    expect(at('/smmuv3@3e000000', 'msi-parent')).toEqual([0x8003]);
    expect(property('/intc/v2m', 'arm,msi-num-spis')).toBeUndefined();
  });

  it('can be hidden without a node, and then no device goes through it as far as the guest knows', () => {
    hideSmmuFunction(fdt);
    expect(findNode(fdt, '/smmuv3@3e000000')).toBeUndefined();
    expect(property('/pcie', 'iommu-map')).toBeUndefined();
    expect(at('/pcie', 'bus-range')).toEqual([0, 0x7f]);
    expect(property('/intc/v2m', 'arm,msi-num-spis')).toBeUndefined();
  });

  it('need not be coherent', () => {
    addSmmu(fdt, { coherent: false });
    expect(property('/smmuv3@3e000000', 'dma-coherent')).toBeUndefined();
  });
});

describe('the rest of the tree', () => {
  it("is QEMU's own", () => {
    const before = virtMachine();
    addSmmu(fdt);
    for (const name of ['apb-pclk', 'aliases', 'virtio_mmio@a000000']) {
      expect(findNode(fdt, name)).toEqual(findNode(before, name));
    }
  });

  it('loses the virtio_mmio slots by their status, not by their nodes', () => {
    disableUnusedDevices(fdt);
    expect(stringsOf(property('/virtio_mmio@a000200', 'status'))).toEqual(['disabled']);
    expect(property('/apb-pclk', 'status')).toBeUndefined();
  });
});
