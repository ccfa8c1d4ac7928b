import { DmaTester, LAB_SMMU, SimHost } from '../../src/index.ts';
import { firstFault } from './first-fault.ts';
import { writeOnce } from './test-device.ts';

const host = new SimHost({ schedule: setImmediate });
const smmu = host.addSmmu({ name: 'arm-smmu-v3.0.auto', ids: LAB_SMMU });
const path = '/dev/vfio/devices/vfio0';
host.addDevice({ path, address: '0000:01:00.0', smmu, sid: 0x100, function: new DmaTester() });

const ram = new Uint8Array(0x1_0000);
console.log(await firstFault(host, path, ram, (device) => writeOnce(host, device, 0x1234_5000n)));
