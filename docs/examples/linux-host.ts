import { LinuxKernel, loadSyscalls } from '../../src/index.ts';
import { firstFault } from './first-fault.ts';
import { writeOnce } from './test-device.ts';

const kernel = new LinuxKernel({ sys: await loadSyscalls() });
try {
  const ram = kernel.guestRam(0x1_0000);
  const path = process.argv[2];
  console.log(await firstFault(kernel, path, ram, (device) => writeOnce(kernel, device, 0x1234_5000n)));
} finally {
  // Closes every descriptor; the kernel then destroys the objects and takes the device back.
  kernel.release();
}
