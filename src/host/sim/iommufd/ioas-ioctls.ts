/** The ioctls of I/O address spaces. */

import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import {
  type IOMMU_IOAS_ALLOC,
  type IOMMU_IOAS_ALLOW_IOVAS,
  type IOMMU_IOAS_CHANGE_PROCESS,
  type IOMMU_IOAS_COPY,
  type IOMMU_IOAS_IOVA_RANGES,
  type IOMMU_IOAS_MAP,
  type IOMMU_IOAS_MAP_FILE,
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  type IOMMU_IOAS_NOIOMMU_GET_PA,
  type IOMMU_IOAS_UNMAP,
  type IOMMU_VFIO_IOAS,
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
  iommu_iova_range,
} from '../../../iommufd/uapi/iommufd.ts';
import type { Command } from './context.ts';
import { Ioas, type IovaRange, U64_MAX } from './ioas.ts';

const MAP_FLAGS = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE;
/** More ranges than this cannot be meant. */
const MAX_RANGES = 65_536;

export function allocIoas(command: Command<typeof IOMMU_IOAS_ALLOC.members>): Errno {
  const { context, values } = command;
  if (values.flags !== 0) return ERRNO.EOPNOTSUPP;
  const ioas = new Ioas(context.ports);
  context.objects.add(ioas);
  return command.respond({ out_ioas_id: ioas.id });
}

export function iovaRanges(command: Command<typeof IOMMU_IOAS_IOVA_RANGES.members>): Errno {
  const { context, values } = command;
  if (values.__reserved !== 0) return ERRNO.EOPNOTSUPP;
  const ioas = context.find(values.ioas_id, Ioas);
  if (ioas === undefined) return ERRNO.ENOENT;
  const ranges = ioas.usableRanges();
  for (const [i, range] of ranges.slice(0, values.num_iovas).entries()) {
    const to = values.allowed_iovas + BigInt(i * iommu_iova_range.size);
    if (!context.ports.user.copyOut(to, iommu_iova_range.encode(range))) return ERRNO.EFAULT;
  }
  command.respond({ num_iovas: ranges.length, out_iova_alignment: ioas.alignment });
  return ranges.length > values.num_iovas ? ERRNO.EMSGSIZE : 0;
}

export function allowIovas({ context, values }: Command<typeof IOMMU_IOAS_ALLOW_IOVAS.members>): Errno {
  if (values.__reserved !== 0) return ERRNO.EOPNOTSUPP;
  const ioas = context.find(values.ioas_id, Ioas);
  if (ioas === undefined) return ERRNO.ENOENT;
  if (values.num_iovas > MAX_RANGES) return ERRNO.ENOMEM;
  const ranges: IovaRange[] = [];
  const bytes = new Uint8Array(iommu_iova_range.size);
  for (let i = 0; i < values.num_iovas; i++) {
    if (!context.ports.user.copyIn(values.allowed_iovas + BigInt(i * bytes.length), bytes))
      return ERRNO.EFAULT;
    const range = iommu_iova_range.decode(bytes);
    if (range.start > range.last) return ERRNO.EINVAL;
    ranges.push(range);
  }
  ranges.sort((a, b) => (a.start < b.start ? -1 : 1));
  for (let i = 1; i < ranges.length; i++) if (ranges[i].start <= ranges[i - 1].last) return ERRNO.EINVAL;
  return ioas.allow(ranges);
}

export function mapIoas(command: Command<typeof IOMMU_IOAS_MAP.members>): Errno {
  const { context, values } = command;
  if ((values.flags & ~MAP_FLAGS) !== 0 || values.__reserved !== 0) return ERRNO.EOPNOTSUPP;
  if (values.iova === U64_MAX || values.length === U64_MAX) return ERRNO.EOVERFLOW;
  const read = (values.flags & IOMMU_IOAS_MAP_READABLE) !== 0;
  const write = (values.flags & IOMMU_IOAS_MAP_WRITEABLE) !== 0;
  if (!read && !write) return ERRNO.EINVAL;
  const ioas = context.find(values.ioas_id, Ioas);
  if (ioas === undefined) return ERRNO.ENOENT;
  const wanted = (values.flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0 ? values.iova : undefined;
  const iova = ioas.map(wanted, values.user_va, values.length, read, write);
  return typeof iova === 'number' ? iova : command.respond({ iova });
}

/** There are no memfds and no dma-bufs here. Any open file will do until its pages are needed. */
export function mapFile(command: Command<typeof IOMMU_IOAS_MAP_FILE.members>): Errno {
  const { context, values } = command;
  if ((values.flags & ~MAP_FLAGS) !== 0) return ERRNO.EOPNOTSUPP;
  if (values.iova === U64_MAX || values.length === U64_MAX) return ERRNO.EOVERFLOW;
  const read = (values.flags & IOMMU_IOAS_MAP_READABLE) !== 0;
  const write = (values.flags & IOMMU_IOAS_MAP_WRITEABLE) !== 0;
  if (!read && !write) return ERRNO.EINVAL;
  const ioas = context.find(values.ioas_id, Ioas);
  if (ioas === undefined) return ERRNO.ENOENT;
  if (values.length === 0n) return ERRNO.EINVAL;
  if (values.start + values.length - 1n > U64_MAX) return ERRNO.EOVERFLOW;
  if (!context.ports.isOpen(values.fd)) return ERRNO.EBADF;
  const wanted = (values.flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0 ? values.iova : undefined;
  const iova = ioas.map(wanted, values.start, values.length, read, write, 'file');
  return typeof iova === 'number' ? iova : command.respond({ iova });
}

export function unmapIoas(command: Command<typeof IOMMU_IOAS_UNMAP.members>): Errno {
  const { context, values } = command;
  const ioas = context.find(values.ioas_id, Ioas);
  if (ioas === undefined) return ERRNO.ENOENT;
  if (values.iova === 0n && values.length === U64_MAX) return command.respond({ length: ioas.unmapAll() });
  if (values.iova === U64_MAX || values.length === U64_MAX) return ERRNO.EOVERFLOW;
  const length = ioas.unmap(values.iova, values.length);
  return typeof length === 'number' ? length : command.respond({ length });
}

export function copyIoas(command: Command<typeof IOMMU_IOAS_COPY.members>): Errno {
  const { context, values } = command;
  if ((values.flags & ~MAP_FLAGS) !== 0) return ERRNO.EOPNOTSUPP;
  const { length, dst_iova: to, src_iova: from } = values;
  if (length === U64_MAX || to === U64_MAX || from === U64_MAX) return ERRNO.EOVERFLOW;
  const read = (values.flags & IOMMU_IOAS_MAP_READABLE) !== 0;
  const write = (values.flags & IOMMU_IOAS_MAP_WRITEABLE) !== 0;
  if (!read && !write) return ERRNO.EINVAL;
  const source = context.find(values.src_ioas_id, Ioas);
  if (source === undefined) return ERRNO.ENOENT;
  if (length === 0n) return ERRNO.EINVAL;
  if (from + length - 1n > U64_MAX) return ERRNO.EOVERFLOW;
  const userVa = source.userAddress(from, length);
  if (userVa === undefined) return ERRNO.ENOENT;
  const target = context.find(values.dst_ioas_id, Ioas);
  if (target === undefined) return ERRNO.ENOENT;
  const wanted = (values.flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0 ? to : undefined;
  const iova = target.map(wanted, userVa, length, read, write);
  return typeof iova === 'number' ? iova : command.respond({ dst_iova: iova });
}

export function vfioIoas(command: Command<typeof IOMMU_VFIO_IOAS.members>): Errno {
  const { context, values } = command;
  if (values.__reserved !== 0) return ERRNO.EOPNOTSUPP;
  switch (values.op) {
    case IOMMU_VFIO_IOAS_GET:
      if (context.vfioIoas === undefined) return ERRNO.ENODEV;
      return command.respond({ ioas_id: context.vfioIoas.id });
    case IOMMU_VFIO_IOAS_SET: {
      const ioas = context.find(values.ioas_id, Ioas);
      if (ioas === undefined) return ERRNO.ENOENT;
      context.vfioIoas = ioas;
      return 0;
    }
    case IOMMU_VFIO_IOAS_CLEAR:
      context.vfioIoas = undefined;
      return 0;
    default:
      return ERRNO.EOPNOTSUPP;
  }
}

/** Only mappings of files can follow to another process; mappings of user addresses cannot. */
export function changeProcess({ context, values }: Command<typeof IOMMU_IOAS_CHANGE_PROCESS.members>): Errno {
  if (values.__reserved !== 0) return ERRNO.EOPNOTSUPP;
  for (const object of context.objects.all())
    if (object instanceof Ioas && object.areas.some(({ source }) => source === 'user')) return ERRNO.EINVAL;
  return 0;
}

/** Every device here has an IOMMU. */
export function noiommuGetPa(_command: Command<typeof IOMMU_IOAS_NOIOMMU_GET_PA.members>): Errno {
  return ERRNO.EOPNOTSUPP;
}
