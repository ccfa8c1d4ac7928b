import { QemuError } from './errors.ts';
import { cells, cellsOf, type Fdt, findCompatible, type FdtNode, strings } from './fdt.ts';

/**
 * The guest's device tree: the one that QEMU's `virt` machine makes of itself, with our SMMU put in.
 *
 * The SMMU's register file is BAR 0 of a vfio-user function on a bus that the guest must never scan: it sits at the top
 * of the 32-bit PCI window, which is cut out of the host bridge's `ranges`, and its bus number is cut out of
 * `bus-range` and ECAM.
 */

/** Where things are in the guest's address space. */
export const LAYOUT = {
  /** The SMMU's two register pages: 128 KiB. */
  smmu: 0x3e00_0000,
  smmuBytes: 0x2_0000,
  /** The window that the hidden root port forwards: 1 MiB, the least that a bridge can forward. */
  hiddenWindowBytes: 0x10_0000,
  /** Buses from here on exist in QEMU and not in the guest's device tree. */
  hiddenBus: 0x80,
  /** The first bus behind a root port. Bus 0 holds QEMU's own devices, whose DMA does not pass through us. */
  firstTranslatedBus: 1,
  ecam: 0x40_1000_0000,
  /** A write of an interrupt number to this register of the GICv2m frame raises that interrupt. */
  v2mSetSpi: 0x0802_0040,
  /** Interrupt numbers that the frame accepts in QEMU's `virt` machine. */
  v2mFirst: 80,
  v2mCount: 64,
  ram: 0x4000_0000,
} as const;

/**
 * The SMMU's wired outputs as interrupt numbers (INTID). They are the last ones of the GICv2m frame, which are taken
 * away from PCI's MSIs, so that a DMA write to `LAYOUT.v2mSetSpi` is all it takes to pulse them.
 */
export const SMMU_INTID = { eventq: 140, priq: 141, sync: 142, gerror: 143 } as const;

/** How the SMMU interrupts. */
export type InterruptKind =
  /** Four edge-triggered SPIs, raised with a write to the GICv2m frame. */
  | 'wired'
  /** Message-signalled: the guest programs address and data in the *_IRQ_CFG registers (needs IDR0.MSI). */
  | 'msi';

export interface DeviceTreeOptions {
  interrupts?: InterruptKind;
  /** The host can walk what the guest's CPU caches hold (IDR0.COHACC); true unless told otherwise. */
  coherent?: boolean;
}

function requiredCompatible(fdt: Fdt, name: string): FdtNode {
  const [node] = findCompatible(fdt, name);
  if (node === undefined) {
    throw new QemuError(
      'BAD_DEVICE_TREE',
      `QEMU's device tree has no ${name}.`,
      'It has to be made with -M virt,gic-version=3,msi=gicv2m.',
    );
  }
  return node;
}

/** A phandle that no node uses yet. */
function freePhandle(fdt: Fdt): number {
  let highest = 0;
  const visit = (node: FdtNode): void => {
    for (const name of ['phandle', 'linux,phandle']) {
      const [value] = cellsOf(node.properties.get(name));
      if (value !== undefined && value !== 0xffff_ffff && value > highest) highest = value;
    }
    for (const child of node.children) visit(child);
  };
  visit(fdt.root);
  return highest + 1;
}

function phandleOf(fdt: Fdt, node: FdtNode): number {
  const [existing] = cellsOf(node.properties.get('phandle'));
  if (existing !== undefined) return existing;
  const phandle = freePhandle(fdt);
  node.properties.set('phandle', cells(phandle));
  return phandle;
}

/** The property with the 32-bit memory window ending at `end`. */
function shrinkMemoryWindow(value: Uint8Array | undefined, end: number): Uint8Array {
  const words = cellsOf(value);
  // Seven cells each: three of the PCI address (the first tells the space), two of the CPU's, two of the size.
  for (let at = 0; at + 7 <= words.length; at += 7) {
    const space = (words[at] >>> 24) & 3;
    const pciLo = words[at + 2];
    if (space !== 2) continue;
    const windowEnd = pciLo + words[at + 6];
    if (words[at + 1] !== 0 || words[at + 5] !== 0 || pciLo >= end || windowEnd < end) {
      throw new QemuError(
        'BAD_DEVICE_TREE',
        "The PCI memory window of QEMU's device tree is not where expected.",
      );
    }
    words[at + 6] = end - pciLo;
    return cells(...words);
  }
  throw new QemuError('BAD_DEVICE_TREE', "QEMU's device tree has no 32-bit PCI memory window.");
}

/**
 * Takes the SMMU's function out of the guest's sight, in place: buses from `LAYOUT.hiddenBus` on and the SMMU's BAR are
 * not PCI's any more.
 * @throws {QemuError} BAD_DEVICE_TREE if this is not the tree of a `virt` machine.
 */
export function hideSmmuFunction(fdt: Fdt): void {
  const pcie = requiredCompatible(fdt, 'pci-host-ecam-generic');
  pcie.properties.set('bus-range', cells(0, LAYOUT.hiddenBus - 1));
  const reg = cellsOf(pcie.properties.get('reg'));
  const ecam = reg.length === 4 ? reg[0] * 2 ** 32 + reg[1] : 0;
  if (ecam !== LAYOUT.ecam) {
    throw new QemuError(
      'BAD_DEVICE_TREE',
      `PCI configuration space is at 0x${ecam.toString(16)}, not where expected.`,
    );
  }
  // 1 MiB of configuration space a bus.
  pcie.properties.set('reg', cells(reg[0], reg[1], 0, LAYOUT.hiddenBus << 20));
  pcie.properties.set('ranges', shrinkMemoryWindow(pcie.properties.get('ranges'), LAYOUT.smmu));
}

/**
 * Puts the SMMU into QEMU's device tree, in place; {@link hideSmmuFunction} belongs to it.
 *
 * Afterwards: a node `smmuv3@3e000000` at `LAYOUT.smmu`; every bus behind a root port goes through it with StreamID = PCI
 * requester ID, bus 0 does not (QEMU's own devices know nothing of our SMMU, and their interrupts would be lost).
 * @throws {QemuError} BAD_DEVICE_TREE if this is not the tree of a `virt` machine with a GICv2m frame.
 */
export function addSmmu(fdt: Fdt, options: DeviceTreeOptions = {}): void {
  const { interrupts = 'wired', coherent = true } = options;
  const pcie = requiredCompatible(fdt, 'pci-host-ecam-generic');
  const v2m = requiredCompatible(fdt, 'arm,gic-v2m-frame');
  const gicPhandle = phandleOf(fdt, requiredCompatible(fdt, 'arm,gic-v3'));
  const v2mPhandle = phandleOf(fdt, v2m);
  if (findCompatible(fdt, 'arm,smmu-v3').length > 0) {
    throw new QemuError(
      'BAD_DEVICE_TREE',
      "QEMU's device tree has an SMMUv3 of its own.",
      'Leave out iommu=smmuv3.',
    );
  }

  const phandle = freePhandle(fdt);
  const smmu: FdtNode = { name: `smmuv3@${LAYOUT.smmu.toString(16)}`, properties: new Map(), children: [] };
  smmu.properties.set('compatible', strings('arm,smmu-v3'));
  smmu.properties.set('reg', cells(0, LAYOUT.smmu, 0, LAYOUT.smmuBytes));
  smmu.properties.set('#iommu-cells', cells(1));
  smmu.properties.set('phandle', cells(phandle));
  if (coherent) smmu.properties.set('dma-coherent', new Uint8Array(0));
  if (interrupts === 'wired') {
    // Linux hands out the frame's interrupts to PCI functions; ours are no longer in it.
    v2m.properties.set('arm,msi-base-spi', cells(LAYOUT.v2mFirst));
    v2m.properties.set('arm,msi-num-spis', cells(SMMU_INTID.eventq - LAYOUT.v2mFirst));
    const order = ['eventq', 'priq', 'sync', 'gerror'] as const;
    smmu.properties.set('interrupt-parent', cells(gicPhandle));
    // Each is an SPI, counted from INTID 32, and rising edge.
    smmu.properties.set('interrupts', cells(...order.flatMap((line) => [0, SMMU_INTID[line] - 32, 1])));
    smmu.properties.set('interrupt-names', strings('eventq', 'priq', 'cmdq-sync', 'gerror'));
  } else {
    smmu.properties.set('msi-parent', cells(v2mPhandle));
  }
  fdt.root.children.push(smmu);

  const first = LAYOUT.firstTranslatedBus << 8;
  pcie.properties.set('iommu-map', cells(first, phandle, first, 0x1_0000 - first));
  pcie.properties.set('msi-map', cells(0, v2mPhandle, 0, 0x1_0000));
}

/**
 * Turns off the `virtio_mmio` slots, which a guest of ours never uses; 32 of them cost boot time.
 * Nodes are kept and marked, so the tree stays QEMU's.
 */
export function disableUnusedDevices(fdt: Fdt): void {
  for (const node of findCompatible(fdt, 'virtio,mmio')) node.properties.set('status', strings('disabled'));
}
