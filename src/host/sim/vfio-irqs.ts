/** VFIO_DEVICE_SET_IRQS of a PCI device. */

import type { Errno, Fd } from '../../iommufd/kernel.ts';
import { ERRNO } from '../../iommufd/uapi/errno.ts';
import * as vfio from '../../iommufd/uapi/vfio.ts';
import { EventFd } from './eventfd.ts';
import type { OpenFile } from './file.ts';
import type { PciSlot } from './pci-slot.ts';

const DATA = vfio.VFIO_IRQ_SET_DATA_NONE | vfio.VFIO_IRQ_SET_DATA_BOOL | vfio.VFIO_IRQ_SET_DATA_EVENTFD;
const ACTION =
  vfio.VFIO_IRQ_SET_ACTION_MASK | vfio.VFIO_IRQ_SET_ACTION_UNMASK | vfio.VFIO_IRQ_SET_ACTION_TRIGGER;
const HEADER = vfio.VFIO_DEVICE_SET_IRQS.size;

const isOneBit = (value: number): boolean => value !== 0 && (value & (value - 1)) === 0;
const isMessage = (index: number): boolean =>
  index === vfio.VFIO_PCI_MSI_IRQ_INDEX || index === vfio.VFIO_PCI_MSIX_IRQ_INDEX;

/**
 * @param fileOf the open file behind a descriptor.
 * @param messagesStart called before the first message vector of a device is set up.
 */
export function setIrqs(
  slot: PciSlot,
  arg: Uint8Array,
  fileOf: (fd: Fd) => OpenFile | undefined,
  messagesStart: () => void,
): Errno {
  if (arg.length < HEADER) return ERRNO.EFAULT;
  const { argsz, flags, index, start, count } = vfio.VFIO_DEVICE_SET_IRQS.decode(arg);
  if (argsz < HEADER || index >= vfio.VFIO_PCI_NUM_IRQS || start + count > 0xffff_ffff) return ERRNO.EINVAL;
  if ((flags & ~(DATA | ACTION)) !== 0 || !isOneBit(flags & DATA)) return ERRNO.EINVAL;
  const vectors = slot.function.irqCounts[index] ?? 0;
  if (start >= vectors || start + count > vectors) return ERRNO.EINVAL;
  const data = flags & DATA;
  const width = data === vfio.VFIO_IRQ_SET_DATA_EVENTFD ? 4 : data === vfio.VFIO_IRQ_SET_DATA_BOOL ? 1 : 0;
  if (argsz - HEADER < width * count) return ERRNO.EINVAL;
  if (arg.length < HEADER + width * count) return ERRNO.EFAULT;
  const payload = arg.subarray(HEADER, HEADER + width * count);
  switch (flags & ACTION) {
    case vfio.VFIO_IRQ_SET_ACTION_TRIGGER:
      return trigger(slot, { data, index, start, count, payload }, fileOf, messagesStart);
    case vfio.VFIO_IRQ_SET_ACTION_MASK:
    case vfio.VFIO_IRQ_SET_ACTION_UNMASK:
      // INTx is a pulse here, so that masking has nothing to hold back.
      return index === vfio.VFIO_PCI_INTX_IRQ_INDEX ? 0 : ERRNO.ENOTTY;
    default:
      return ERRNO.ENOTTY;
  }
}

interface Request {
  readonly data: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  readonly payload: Uint8Array;
}

function trigger(
  slot: PciSlot,
  { data, index, start, count, payload }: Request,
  fileOf: (fd: Fd) => OpenFile | undefined,
  messagesStart: () => void,
): Errno {
  if (data === vfio.VFIO_IRQ_SET_DATA_NONE && count === 0) {
    slot.clearVectors(index);
    return 0;
  }
  if (data !== vfio.VFIO_IRQ_SET_DATA_EVENTFD) {
    for (let i = 0; i < count; i++)
      if (data === vfio.VFIO_IRQ_SET_DATA_NONE || payload[i] !== 0) slot.loopback(index, start + i);
    return 0;
  }
  // A device has message interrupts of one kind at a time, and none together with INTx.
  const kinds = [vfio.VFIO_PCI_INTX_IRQ_INDEX, vfio.VFIO_PCI_MSI_IRQ_INDEX, vfio.VFIO_PCI_MSIX_IRQ_INDEX];
  if (kinds.includes(index) && kinds.some((kind) => kind !== index && slot.vectorsOf(kind).length > 0))
    return ERRNO.EINVAL;
  const eventfds: (EventFd | undefined)[] = [];
  const fds = new DataView(payload.buffer, payload.byteOffset, payload.length);
  for (let i = 0; i < count; i++) {
    const fd = fds.getInt32(i * 4, true);
    const file = fd < 0 ? undefined : fileOf(fd);
    if (fd >= 0 && file === undefined) return ERRNO.EBADF;
    if (file !== undefined && !(file instanceof EventFd)) return ERRNO.EINVAL;
    eventfds.push(file);
  }
  if (isMessage(index) && slot.vectorsOf(index).length === 0) messagesStart();
  for (const [i, eventfd] of eventfds.entries()) slot.setVector(index, start + i, eventfd);
  return 0;
}
