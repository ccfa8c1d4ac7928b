import { describe, expect, it } from 'vitest';

import {
  type BootOptions,
  bootArguments,
  DEFAULT_MACHINE,
  dumpArguments,
  kernelCommandLine,
  pciAddressOfPort,
  streamIdOfPort,
} from '../../src/qemu/command-line.ts';
import { parseVersion } from '../../src/qemu/program.ts';

const boot: BootOptions = {
  kernel: '/k',
  initrd: '/i',
  append: 'console=ttyAMA0',
  dtb: '/d',
  smmuSocket: '/s/smmu',
  devices: [{ id: 'nvme0', socket: '/s/nvme,0', port: 1 }],
  channels: { console: '/s/console', commands: '/s/commands', qmp: '/s/a,b', qtest: '/s/qtest' },
  exitWithParent: true,
};

/** The values of an option that may be given more than once. */
const values = (args: string[], option: string): string[] =>
  args.flatMap((arg, i) => (arg === option ? [args[i + 1] ?? ''] : []));

describe('the command line', () => {
  const args = bootArguments(DEFAULT_MACHINE, boot);

  it('starts the machine stopped, so that the SMMU is there before the guest', () => {
    expect(args).toContain('-S');
  });

  it('shares the RAM, or the DMA_MAP messages would carry no descriptor', () => {
    expect(values(args, '-object')).toEqual(['memory-backend-memfd,id=ram,size=512M,share=on']);
    expect(values(args, '-M')).toEqual(['virt,gic-version=3,msi=gicv2m,memory-backend=ram']);
  });

  it('puts the SMMU behind a root port of an expander bridge, which takes nothing else', () => {
    const devices = values(args, '-device');
    expect(devices).toContain('pxb-pcie,id=hidden,bus=pcie.0,bus_nr=128,addr=0x1f');
    expect(devices.find((device) => device.includes('id=smmuport'))).toContain('bus=hidden,addr=0,');
    expect(devices.map((device) => (device.startsWith('{') ? JSON.parse(device) : device))).toContainEqual({
      driver: 'vfio-user-pci',
      id: 'smmu',
      bus: 'smmuport',
      addr: '0',
      socket: { type: 'unix', path: '/s/smmu' },
    });
  });

  it('puts devices into root ports, and their paths may have commas', () => {
    const nvme = values(args, '-device').find((device) => device.includes('nvme0')) ?? '{}';
    expect(JSON.parse(nvme)).toMatchObject({ bus: 'port1', socket: { path: '/s/nvme,0' } });
    expect(values(args, '-chardev')).toContain('socket,id=qmp,path=/s/a,,b');
  });

  it('gives each root port a slot of its own on bus 0', () => {
    const ports = values(args, '-device').filter((device) => device.includes('id=port'));
    expect(ports).toHaveLength(4);
    const slots = ports.map((port) => /addr=(\w+)/.exec(port)?.[1]);
    expect(new Set(slots).size).toBe(4);
  });

  it('has no SMMU and no hidden bus if there is no socket for it', () => {
    const plain = bootArguments(DEFAULT_MACHINE, { ...boot, smmuSocket: undefined, devices: [] });
    expect(plain.join(' ')).not.toMatch(/pxb|vfio-user/);
  });

  it('asks an older QEMU for nothing that it does not know', () => {
    expect(bootArguments(DEFAULT_MACHINE, { ...boot, exitWithParent: false })).not.toContain('-run-with');
  });

  it('dumps the tree of the same machine', () => {
    const dump = dumpArguments(DEFAULT_MACHINE, '/t');
    expect(values(dump, '-M')).toEqual(['virt,gic-version=3,msi=gicv2m,memory-backend=ram,dumpdtb=/t']);
    for (const option of ['-smp', '-m', '-cpu']) expect(values(dump, option)).toEqual(values(args, option));
    expect(values(dump, '-serial')).toHaveLength(values(args, '-serial').length);
  });
});

describe('a device in a root port', () => {
  it('has the requester ID of function 0 on the bus behind the port as StreamID', () => {
    expect([0, 1, 3].map(streamIdOfPort)).toEqual([0x100, 0x200, 0x400]);
    expect([0, 1, 15].map(pciAddressOfPort)).toEqual(['0000:01:00.0', '0000:02:00.0', '0000:10:00.0']);
  });
});

describe('the kernel command line', () => {
  it('makes Linux use the GICv2m frame under a GICv3', () => {
    expect(kernelCommandLine(true).split(' ')).toContain('irqchip.gicv3_nolpi=1');
  });

  it('keeps empty root ports awake, or nothing can be plugged in a second time', () => {
    expect(kernelCommandLine(true).split(' ')).toContain('pcie_port_pm=off');
  });

  it('ends with what the user adds, so that it wins', () => {
    expect(kernelCommandLine(false, 'iommu.passthrough=1 loglevel=8')).toMatch(
      / iommu.passthrough=1 loglevel=8$/,
    );
    expect(kernelCommandLine(false)).not.toContain('quiet');
  });
});

describe('the version of a QEMU', () => {
  it.each([
    ['QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\nCopyright', [11, 1, 3]],
    ['QEMU emulator version 10.1.0', [10, 1, 0]],
    ['some warning\nQEMU emulator version 7.2.22 (Debian 1:7.2+dfsg)', [7, 2, 22]],
    ['GNU coreutils 9.1', undefined],
    ['', undefined],
  ])('in %j is %j', (text, version) => {
    expect(parseVersion(text)).toEqual(version);
  });
});
