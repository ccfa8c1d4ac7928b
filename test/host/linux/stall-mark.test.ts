import { expect, it } from 'vitest';
import { mayStall } from '../../../src/host/linux/stall-mark.ts';
import { fixture } from './fixture.ts';

const ACC = '/sys/bus/pci/devices/0000:75:00.0';
const pci = (vendor: string, device: string, revision: string): string[] => [
  `${ACC}/vendor: ${vendor}`,
  `${ACC}/device: ${device}`,
  `${ACC}/revision: ${revision}`,
];

it.each<[string, string, readonly string[], boolean]>([
  ['PCI, with nothing said', '0000:75:00.0', pci('0x8086', '0x10fb', '0x21'), false],
  ['marked in the device tree', '0000:75:00.0', [`${ACC}/of_node/dma-can-stall: `], true],
  ['in the device tree, not marked', '0000:75:00.0', [`${ACC}/of_node/reg: `], false],
  // The device tree is believed, and the kernel's list is for machines without one.
  [
    'on the list, in a device tree that does not mark it',
    '0000:75:00.0',
    [...pci('0x19e5', '0xa250', '0x21'), `${ACC}/of_node/reg: `],
    false,
  ],
  ['on the list', '0000:75:00.0', pci('0x19e5', '0xa250', '0x21'), true],
  ['on the list, of another revision', '0000:75:00.0', pci('0x19e5', '0xa250', '0x10'), false],
  [
    'a platform device',
    '9080000.dma',
    ['/sys/bus/platform/devices/9080000.dma/of_node/dma-can-stall: '],
    true,
  ],
  ['not there at all', '0000:77:00.0', [], false],
])('%s', (_, name, lines, expected) => {
  expect(mayStall(fixture('kernel.tree', ...lines), name)).toBe(expected);
});
