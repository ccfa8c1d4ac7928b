/** An open `/dev/iommu`: the dispatcher of its ioctls. */

import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import { IOMMUFD_IOCTLS } from '../../../iommufd/uapi/iommufd.ts';
import type { Ioctl, Members } from '../../../iommufd/uapi/struct.ts';
import { OpenFile } from '../file.ts';
import { Command, type ContextPorts, IommufdContext } from './context.ts';
import { HANDLERS } from './handlers.ts';

const FIRST_NUMBER = 0x80;
const TABLE = new Map<number, Ioctl<Members>>(
  IOMMUFD_IOCTLS.map((ioctl) => [ioctl.request & 0xff, ioctl as Ioctl<Members>]),
);

export class IommufdFile extends OpenFile {
  readonly context: IommufdContext;

  constructor(ports: ContextPorts) {
    super();
    this.context = new IommufdContext(ports);
  }

  override ioctl(request: number, arg: Uint8Array): Errno {
    const ioctl = TABLE.get(request & 0xff);
    const { unknown, sizes } = this.context.ports.version;
    if (ioctl === undefined || (request & 0xff) < FIRST_NUMBER || unknown.has(ioctl.request))
      return ERRNO.ENOTTY;
    if (arg.length < 4) return ERRNO.EFAULT;
    const size = new DataView(arg.buffer, arg.byteOffset).getUint32(0, true);
    if (ioctl.request !== request) return ERRNO.ENOTTY;
    if (size < ioctl.minSize) return ERRNO.EINVAL;
    if (size > arg.length) return ERRNO.EFAULT;
    if (arg.subarray(sizes.get(request) ?? ioctl.size, size).some((byte) => byte !== 0)) return ERRNO.E2BIG;
    const handle = HANDLERS[ioctl.ioctl as keyof typeof HANDLERS] as (command: Command<Members>) => Errno;
    return handle(new Command(this.context, ioctl, arg, size));
  }

  override pread(_into: Uint8Array, _offset: number): number {
    return -ERRNO.EINVAL;
  }

  override pwrite(_from: Uint8Array, _offset: number): number {
    return -ERRNO.EINVAL;
  }

  override release(): void {
    this.context.unpin();
  }
}
