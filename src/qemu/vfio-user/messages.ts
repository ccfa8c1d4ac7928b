/**
 * The vfio-user protocol 0.0 as data: what QEMU >= 10.1 speaks. Names are the protocol's without VFIO_USER_. Offsets
 * of payload fields count from the end of the header.
 */

import { u16, u32, u64, type WireLayout } from './wire.ts';

export const HEADER = { id: u16(0), command: u16(2), size: u32(4), flags: u32(8), error: u32(12) } as const;
export const HEADER_SIZE = 16;

/** Bits of HEADER.flags. */
export const FLAG = {
  TypeMask: 0xf,
  Command: 0,
  Reply: 1,
  NoReply: 1 << 4,
  Error: 1 << 5,
} as const;

/** One kind of message. */
export interface MessageType {
  readonly name: string;
  readonly command: number;
  /** Who asks. */
  readonly from: 'client' | 'server';
  readonly fields: WireLayout;
  /** Payload bytes of a request without its tail. */
  readonly size: number;
  /** What may follow these bytes; undefined if nothing may. */
  readonly tail?: 'json' | 'data' | 'booleans' | 'writes';
  /** The most descriptors that may come with a request. */
  readonly maxFds: number;
}

/** The most data bytes of one message, in either direction. QEMU reads a whole configuration space at once: 4 KiB. */
export const MAX_DATA = 0x1_0000;

/** The most descriptors of one message; QEMU refuses to hear of more than 16. */
export const MAX_FDS = 16;

const regionAccess = { offset: u64(0), region: u32(8), count: u32(12) } as const;
export const REGION_ACCESS_SIZE = 16;

const dmaAccess = { address: u64(0), count: u64(8) } as const;
export const DMA_ACCESS_SIZE = 16;

export const VERSION = {
  name: 'VERSION',
  command: 1,
  from: 'client',
  fields: { major: u16(0), minor: u16(2) },
  size: 4,
  tail: 'json',
  maxFds: 0,
} as const satisfies MessageType;

export const DMA_MAP = {
  name: 'DMA_MAP',
  command: 2,
  from: 'client',
  fields: { argsz: u32(0), flags: u32(4), offset: u64(8), address: u64(16), size: u64(24) },
  size: 32,
  maxFds: 1,
} as const satisfies MessageType;
export const DMA_MAP_READABLE = 1;
export const DMA_MAP_WRITEABLE = 2;

export const DMA_UNMAP = {
  name: 'DMA_UNMAP',
  command: 3,
  from: 'client',
  fields: { argsz: u32(0), flags: u32(4), address: u64(8), size: u64(16) },
  size: 24,
  maxFds: 0,
} as const satisfies MessageType;
/** Every window at once; address and size are 0. */
export const DMA_UNMAP_ALL = 2;

export const DEVICE_GET_INFO = {
  name: 'DEVICE_GET_INFO',
  command: 4,
  from: 'client',
  fields: { argsz: u32(0), flags: u32(4), num_regions: u32(8), num_irqs: u32(12) },
  size: 16,
  maxFds: 0,
} as const satisfies MessageType;
export const DEVICE_FLAG_RESET = 1;
export const DEVICE_FLAG_PCI = 2;

export const DEVICE_GET_REGION_INFO = {
  name: 'DEVICE_GET_REGION_INFO',
  command: 5,
  from: 'client',
  fields: {
    argsz: u32(0),
    flags: u32(4),
    index: u32(8),
    cap_offset: u32(12),
    size: u64(16),
    offset: u64(24),
  },
  size: 32,
  maxFds: 0,
} as const satisfies MessageType;
export const REGION_FLAG_READ = 1;
export const REGION_FLAG_WRITE = 2;
export const REGION_FLAG_MMAP = 4;

export const DEVICE_GET_REGION_IO_FDS = {
  name: 'DEVICE_GET_REGION_IO_FDS',
  command: 6,
  from: 'client',
  fields: { argsz: u32(0), flags: u32(4), index: u32(8), count: u32(12) },
  size: 16,
  maxFds: 0,
} as const satisfies MessageType;

export const DEVICE_GET_IRQ_INFO = {
  name: 'DEVICE_GET_IRQ_INFO',
  command: 7,
  from: 'client',
  fields: { argsz: u32(0), flags: u32(4), index: u32(8), count: u32(12) },
  size: 16,
  maxFds: 0,
} as const satisfies MessageType;
export const IRQ_FLAG = { Eventfd: 1, Maskable: 2, Automasked: 4, Noresize: 8 } as const;

export const DEVICE_SET_IRQS = {
  name: 'DEVICE_SET_IRQS',
  command: 8,
  from: 'client',
  fields: { argsz: u32(0), flags: u32(4), index: u32(8), start: u32(12), count: u32(16) },
  size: 20,
  tail: 'booleans',
  maxFds: MAX_FDS,
} as const satisfies MessageType;
export const SET_IRQS = {
  DataNone: 1,
  DataBool: 2,
  DataEventfd: 4,
  DataMask: 7,
  Mask: 8,
  Unmask: 16,
  Trigger: 32,
  ActionMask: 56,
} as const;

export const REGION_READ = {
  name: 'REGION_READ',
  command: 9,
  from: 'client',
  fields: regionAccess,
  size: REGION_ACCESS_SIZE,
  maxFds: 0,
} as const satisfies MessageType;

export const REGION_WRITE = {
  name: 'REGION_WRITE',
  command: 10,
  from: 'client',
  fields: regionAccess,
  size: REGION_ACCESS_SIZE,
  tail: 'data',
  maxFds: 0,
} as const satisfies MessageType;

export const DMA_READ = {
  name: 'DMA_READ',
  command: 11,
  from: 'server',
  fields: dmaAccess,
  size: DMA_ACCESS_SIZE,
  maxFds: 0,
} as const satisfies MessageType;

export const DMA_WRITE = {
  name: 'DMA_WRITE',
  command: 12,
  from: 'server',
  fields: dmaAccess,
  size: DMA_ACCESS_SIZE,
  tail: 'data',
  maxFds: 0,
} as const satisfies MessageType;

export const DEVICE_RESET = {
  name: 'DEVICE_RESET',
  command: 13,
  from: 'client',
  fields: {},
  size: 0,
  maxFds: 0,
} as const satisfies MessageType;

export const REGION_WRITE_MULTI = {
  name: 'REGION_WRITE_MULTI',
  command: 15,
  from: 'client',
  fields: { wr_cnt: u64(0) },
  size: 8,
  tail: 'writes',
  maxFds: 0,
} as const satisfies MessageType;
/** Each of its writes is a {@link regionAccess} and 8 bytes of data, however many of them count. */
export const MULTI_WRITE_SIZE = 24;
export const MULTI_WRITE_DATA = 8;

/** Every message, by command number. */
export const MESSAGES: ReadonlyMap<number, MessageType> = new Map(
  [
    VERSION,
    DMA_MAP,
    DMA_UNMAP,
    DEVICE_GET_INFO,
    DEVICE_GET_REGION_INFO,
    DEVICE_GET_REGION_IO_FDS,
    DEVICE_GET_IRQ_INFO,
    DEVICE_SET_IRQS,
    REGION_READ,
    REGION_WRITE,
    DMA_READ,
    DMA_WRITE,
    DEVICE_RESET,
    REGION_WRITE_MULTI,
  ].map((type) => [type.command, type]),
);

/** The largest message that we send or take. */
export const MAX_MESSAGE = HEADER_SIZE + REGION_ACCESS_SIZE + MAX_DATA;

/** `DMA_MAP`, or `command 77` for one that the table does not have. */
export const messageName = (command: number): string => MESSAGES.get(command)?.name ?? `command ${command}`;
