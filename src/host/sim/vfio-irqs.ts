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

interface Request {
  readonly data: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  readonly payload: Uint8Array;
}

export interface IrqPorts {
  /** The open file behind a descriptor. */
  file(fd: Fd): OpenFile | undefined;
  /** Called before the first message vector of a device is set up. @returns why there can be none, or 0. */
  messagesStart(): Errno;
}

export function setIrqs(slot: PciSlot, arg: Uint8Array, ports: IrqPorts): Errno {
  if (arg.length < HEADER) return ERRNO.EFAULT;
  const { argsz, flags, index, start, count } = vfio.VFIO_DEVICE_SET_IRQS.decode(arg);
  if (argsz < HEADER || index >= vfio.VFIO_PCI_NUM_IRQS || start + count >= 0xffff_ffff) return ERRNO.EINVAL;
  if ((flags & ~(DATA | ACTION)) !== 0) return ERRNO.EINVAL;
  const vectors = slot.function.irqCounts[index] ?? 0;
  if (start >= vectors || start + count > vectors || !isOneBit(flags & DATA)) return ERRNO.EINVAL;
  const data = flags & DATA;
  const width = data === vfio.VFIO_IRQ_SET_DATA_EVENTFD ? 4 : data === vfio.VFIO_IRQ_SET_DATA_BOOL ? 1 : 0;
  if (argsz - HEADER < width * count) return ERRNO.EINVAL;
  if (arg.length < HEADER + width * count) return ERRNO.EFAULT;
  const request = { data, index, start, count, payload: arg.subarray(HEADER, HEADER + width * count) };
  const action = flags & ACTION;
  switch (index) {
    case vfio.VFIO_PCI_INTX_IRQ_INDEX:
      return setIntx(slot, request, action, ports);
    case vfio.VFIO_PCI_MSI_IRQ_INDEX:
    case vfio.VFIO_PCI_MSIX_IRQ_INDEX:
      return action === vfio.VFIO_IRQ_SET_ACTION_TRIGGER ? setMessages(slot, request, ports) : ERRNO.ENOTTY;
    default:
      return action === vfio.VFIO_IRQ_SET_ACTION_TRIGGER ? setSingle(slot, request, ports) : ERRNO.ENOTTY;
  }
}

/** INTx is a pulse here, so that masking has nothing to hold back. */
function setIntx(slot: PciSlot, request: Request, action: number, ports: IrqPorts): Errno {
  const { data, index, start, count } = request;
  const on = slot.irqKind === index;
  switch (action) {
    case vfio.VFIO_IRQ_SET_ACTION_TRIGGER:
      if (on && count === 0 && data === vfio.VFIO_IRQ_SET_DATA_NONE) {
        slot.disableIrqs();
        return 0;
      }
      if (!(on || slot.irqKind === undefined) || start !== 0 || count !== 1) return ERRNO.EINVAL;
      if (data !== vfio.VFIO_IRQ_SET_DATA_EVENTFD) return on ? loopback(slot, request) : ERRNO.EINVAL;
      return setVectors(slot, request, ports);
    case vfio.VFIO_IRQ_SET_ACTION_MASK:
    case vfio.VFIO_IRQ_SET_ACTION_UNMASK:
      if (!on || start !== 0 || count !== 1) return ERRNO.EINVAL;
      return data === vfio.VFIO_IRQ_SET_DATA_EVENTFD && action === vfio.VFIO_IRQ_SET_ACTION_MASK
        ? ERRNO.ENOTTY
        : 0;
    default:
      return ERRNO.ENOTTY;
  }
}

/** A device has message interrupts of one kind at a time, and none together with INTx. */
function setMessages(slot: PciSlot, request: Request, ports: IrqPorts): Errno {
  const { data, index, count } = request;
  const on = slot.irqKind === index;
  if (on && count === 0 && data === vfio.VFIO_IRQ_SET_DATA_NONE) {
    slot.disableIrqs();
    return 0;
  }
  if (!(on || slot.irqKind === undefined)) return ERRNO.EINVAL;
  if (data !== vfio.VFIO_IRQ_SET_DATA_EVENTFD) return on ? loopback(slot, request) : ERRNO.EINVAL;
  if (on) return setVectors(slot, request, ports);
  const cannot = ports.messagesStart();
  return cannot === 0 ? setVectors(slot, request, ports) : cannot;
}

/** ERR and REQ are one eventfd each, whatever else the device has. */
function setSingle(slot: PciSlot, request: Request, ports: IrqPorts): Errno {
  const { data, index, start, count } = request;
  if (start !== 0 || count > 1) return ERRNO.EINVAL;
  if (data === vfio.VFIO_IRQ_SET_DATA_NONE) {
    if (slot.vectorsOf(index).length === 0) return ERRNO.EINVAL;
    if (count === 0) slot.clearVectors(index);
    else slot.loopback(index, 0);
    return 0;
  }
  if (count === 0) return ERRNO.EINVAL;
  return data === vfio.VFIO_IRQ_SET_DATA_BOOL ? loopback(slot, request) : setVectors(slot, request, ports);
}

/** Signals by hand what has an eventfd. */
function loopback(slot: PciSlot, { data, index, start, count, payload }: Request): Errno {
  for (let i = 0; i < count; i++)
    if (data === vfio.VFIO_IRQ_SET_DATA_NONE || payload[i] !== 0) slot.loopback(index, start + i);
  return 0;
}

/** One after the other; if one is no eventfd, all of them are without. */
function setVectors(slot: PciSlot, { index, start, count, payload }: Request, ports: IrqPorts): Errno {
  const isKind = index <= vfio.VFIO_PCI_MSIX_IRQ_INDEX;
  const before = slot.irqKind;
  if (isKind && before === undefined) {
    slot.irqKind = index;
    slot.irqCount = start + count;
  }
  const fds = new DataView(payload.buffer, payload.byteOffset, payload.length);
  for (let i = 0; i < count; i++) {
    const fd = fds.getInt32(i * 4, true);
    const file = fd < 0 ? undefined : ports.file(fd);
    // VFIO_IRQ_INFO_NORESIZE: there are no more than at first until all are turned off.
    const tooMany = fd >= 0 && index === vfio.VFIO_PCI_MSI_IRQ_INDEX && start + i >= slot.irqCount;
    if (!tooMany && (fd < 0 || file instanceof EventFd)) {
      slot.setVector(index, start + i, file as EventFd | undefined);
      continue;
    }
    for (let j = 0; j <= i; j++) slot.setVector(index, start + j, undefined);
    if (isKind && before === undefined) slot.disableIrqs();
    return file === undefined && !tooMany ? ERRNO.EBADF : ERRNO.EINVAL;
  }
  return 0;
}
