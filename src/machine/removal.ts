/** A host that wants a device back, such as one that is being pulled out, says so through the device's request interrupt. */

import { HostError } from '../iommufd/errors.ts';
import type { Kernel } from '../iommufd/kernel.ts';
import { VFIO_PCI_REQ_IRQ_INDEX } from '../iommufd/uapi/vfio.ts';
import type { VfioDevice } from '../iommufd/vfio-device.ts';

export interface RemovalWatch {
  /** Stopping twice is harmless. The device may be closed before or after. */
  stop(): void;
}

/**
 * Calls back, once, when the host wants a device back; it is gone when it is closed.
 * @returns undefined if the device cannot tell: the host then waits until somebody closes it.
 */
export function watchRemoval(
  kernel: Kernel,
  device: VfioDevice,
  asked: () => void,
): RemovalWatch | undefined {
  const fd = kernel.eventfd();
  if (fd < 0) return undefined;
  try {
    device.setIrqs(VFIO_PCI_REQ_IRQ_INDEX, 0, [fd]);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    kernel.close(fd);
    return undefined;
  }
  let stopped = false;
  const stop = (): void => {
    if (stopped) return;
    stopped = true;
    watch.stop();
    kernel.close(fd);
  };
  const watch = kernel.onReadable(fd, () => {
    stop();
    asked();
  });
  return { stop };
}
