/**
 * The PCI functions of the oracle's QEMU, and how they are made to do DMA. edu only reads (it can write, but that takes
 * virtual time as well), iommu-testdev only writes.
 */

const ECAM = 0x40_1000_0000;
/** Where BARs go; below is nothing that a case may use. */
const WINDOW = 0x1000_0000;
const BAR_SIZE = 0x10_0000;

/** Offsets in configuration space, and COMMAND with memory space and bus master on. */
const COMMAND = 0x04;
const BAR0 = 0x10;
const BUS_NUMBERS = 0x18;
const MEMORY_WINDOW = 0x20;
const ENABLE = 6;

export interface Endpoint {
  readonly sid: number;
  readonly reads: boolean;
  /** Where its registers are. */
  readonly bar: number;
}

const READERS = [8, 16, 40, 128, 240, 256];
const WRITERS = [24, 32, 41, 136, 248, 512];

/** By StreamID, which is the requester ID: bus, device, function. */
export const ENDPOINTS: ReadonlyMap<number, Endpoint> = new Map(
  [...READERS, ...WRITERS].map((sid, i) => [
    sid,
    { sid, reads: READERS.includes(sid), bar: WINDOW + i * BAR_SIZE },
  ]),
);

export const READER_SIDS: readonly number[] = READERS;
export const WRITER_SIDS: readonly number[] = WRITERS;

/** Buses 1 and 2 are behind root ports. */
const PORTS = [
  { bus: 1, device: 0x1c },
  { bus: 2, device: 0x1d },
];
const portOf = (sid: number): (typeof PORTS)[number] | undefined => PORTS.find(({ bus }) => bus === sid >> 8);

/** Arguments that put them into the machine. */
export function endpointArguments(): string[] {
  const args: string[] = [];
  for (const { bus, device } of PORTS) {
    const addr = device.toString(16);
    args.push('-device', `pcie-root-port,id=port${bus},bus=pcie.0,addr=${addr}.0,chassis=${bus},slot=${bus}`);
  }
  for (const { sid, reads } of ENDPOINTS.values()) {
    const port = portOf(sid);
    const bus = port === undefined ? 'pcie.0' : `port${port.bus}`;
    const addr = `${((sid >> 3) & 31).toString(16)}.${sid & 7}`;
    // 40 and 41 are functions 0 and 1 of one device.
    const more = sid === 40 ? ',multifunction=on' : '';
    args.push(
      '-device',
      `${reads ? 'edu,dma_mask=0xffffffffffffffff' : 'iommu-testdev'},bus=${bus},addr=${addr}${more}`,
    );
  }
  return args;
}

const config = (sid: number, offset: number): number => ECAM + sid * 0x1000 + offset;
const writel = (address: number, value: number): string => `writel ${address} ${value >>> 0}`;

/**
 * qtest commands that give the root ports their buses after a reset. Always: QEMU finds a function for CFGI_CD by its bus
 * number, and a bus without a number counts as bus 0.
 */
export function enablePorts(): string[] {
  return PORTS.flatMap(({ bus, device }) => {
    const at = device << 3;
    const [{ bar }] = [...ENDPOINTS.values()].filter(({ sid }) => sid >> 8 === bus);
    const window = (bar >>> 16) & 0xfff0;
    return [
      writel(config(at, BUS_NUMBERS), (bus << 16) | (bus << 8)),
      writel(config(at, MEMORY_WINDOW), (window << 16) | window),
      writel(config(at, COMMAND), ENABLE),
    ];
  });
}

/** qtest commands that make an endpoint usable after a reset and {@link enablePorts}. */
export function enableEndpoint({ sid, bar, reads }: Endpoint): string[] {
  const lines = [writel(config(sid, BAR0), bar), writel(config(sid, COMMAND), ENABLE)];
  // iommu-testdev: four bytes, Non-secure.
  if (!reads) lines.push(writel(bar + 0x0c, 4), writel(bar + 0x18, 0x0a));
  return lines;
}

/** edu's buffer, as its registers see it. */
const EDU_BUFFER = 0x4_0000;
/** How long edu takes. */
const EDU_DELAY_NS = 100_000_000;

/** A DMA of edu from memory into its buffer at `slot` bytes, or the other way. `address` is what the SMMU sees. */
export function eduDma(
  { bar }: Endpoint,
  direction: 'read' | 'write',
  address: bigint,
  slot: number,
  bytes: number,
): string[] {
  const buffer = EDU_BUFFER + slot;
  const [source, destination] = direction === 'read' ? [address, buffer] : [buffer, address];
  return [
    `writeq ${bar + 0x80} ${source}`,
    `writeq ${bar + 0x88} ${destination}`,
    `writeq ${bar + 0x90} ${bytes}`,
    `writeq ${bar + 0x98} ${direction === 'read' ? 1 : 3}`,
    `clock_step ${EDU_DELAY_NS}`,
  ];
}

/** A write of four bytes by iommu-testdev. The last command reads the result: {@link TESTDEV_FAILED} or something else. */
export function testdevWrite({ bar }: Endpoint, address: bigint): string[] {
  return [
    writel(bar + 0x04, Number(address & 0xffff_ffffn)),
    writel(bar + 0x08, Number(address >> 32n)),
    writel(bar + 0x14, 1),
    `readl ${bar}`,
    `readl ${bar + 0x10}`,
  ];
}

export const TESTDEV_FAILED = 0xdead_0002;
