/**
 * What QEMU's own accelerated SMMUv3 asks of Linux for each action of a guest: QEMU runs under strace and KVM, with devices
 * of the lab behind `arm-smmuv3,accel=on`, and a Linux in it does one thing after the other. Prints one line of JSON.
 * `node peer.js FOLDER RNG TESTDEV`, in the lab: a folder with Image, firmware and initramfs, and the addresses of a
 * virtio-rng and of an iommu-testdev, both bound to vfio-pci.
 */

import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { GuestShell } from '../../../src/qemu/guest-shell.ts';
import { KernelLog } from '../../../src/qemu/kernel-log.ts';
import type { QemuProgram } from '../../../src/qemu/program.ts';
import { QemuProcess } from '../../../src/qemu/qemu-process.ts';
import { Qmp } from '../../../src/qemu/qmp.ts';
import { RunFolder } from '../../../src/qemu/run-folder.ts';
import { SocketListener } from '../../../src/qemu/socket-listener.ts';
import { readStrace, readTrace, TRACE_EVENTS, type Entry } from './peer-trace.ts';

/** What one action was seen to do, in order. */
export interface Observed {
  readonly action: string;
  readonly entries: readonly Entry[];
}

const PEER = '/lab/peer/usr';
const LOADER = [
  `${PEER}/lib/ld-linux-aarch64.so.1`,
  '--inhibit-cache',
  '--library-path',
  `${PEER}/lib/aarch64-linux-gnu`,
];
/** PCI device ids, as sysfs has them. */
const VIRTIO_RNG = '0x1044';
const IOMMU_TESTDEV = '0x0005';

const LIMIT_MS = 90_000;
const QUIET_MS = 400;

const [shared, rng, testdev] = process.argv.slice(2);
const folder = new RunFolder('/tmp');
const observed: Observed[] = [];

interface Session {
  readonly qemu: QemuProcess;
  readonly qmp: Qmp;
  readonly shell: GuestShell;
  readonly log: KernelLog;
  /** Files with what it does. */
  readonly traces: Traces;
}

interface Traces {
  readonly qemu: string;
  readonly strace: string;
}

let sessions = 0;

/** Starts QEMU, whose guest does not run yet. @param devices in the order in which they are plugged, cold. */
async function start(devices: readonly string[]): Promise<Session> {
  const name = `s${sessions++}`;
  const traces: Traces = { qemu: folder.file(`${name}.trace`), strace: folder.file(`${name}.strace`) };
  const channels = ['console', 'commands', 'qmp'].map((channel) => folder.socket(`${name}-${channel}`));
  const listeners = await Promise.all(channels.map((path) => SocketListener.listen(path)));
  const program: QemuProgram = {
    file: LOADER[0],
    leadingArguments: [
      ...LOADER.slice(1),
      `${PEER}/bin/strace`,
      // The main thread alone: the guest's CPU would be slowed down too much.
      '--quiet=all',
      '--raw=ioctl',
      '--trace=ioctl,read',
      '--signal=none',
      '-o',
      traces.strace,
      ...LOADER,
      `${PEER}/bin/qemu-system-aarch64`,
    ],
    environment: { QEMU_MODULE_DIR: `${PEER}/lib/aarch64-linux-gnu/qemu` },
  };
  const args = [
    ['-M', 'virt,gic-version=3,its=on'],
    ['-cpu', 'host'],
    ['-accel', 'kvm'],
    ['-smp', '1'],
    ['-m', '256'],
    ['-nodefaults', '-no-user-config', '-no-shutdown', '-S'],
    ['-display', 'none', '-monitor', 'none'],
    ['-L', `${PEER}/share/qemu`],
    ['-bios', `${shared}/firmware`, '-kernel', `${shared}/Image`, '-initrd', `${shared}/initramfs`],
    ['-append', 'console=ttyAMA0 panic=-1 quiet pcie_ports=native'],
    ['-object', 'iommufd,id=iommufd0'],
    ['-device', 'pxb-pcie,id=pcie.second,bus=pcie.0,bus_nr=32'],
    ['-device', 'pcie-root-port,id=port0,bus=pcie.second,chassis=1'],
    ['-device', 'pcie-root-port,id=port1,bus=pcie.second,chassis=2'],
    ['-device', 'arm-smmuv3,primary-bus=pcie.second,id=smmu0,accel=on'],
    ...devices.map((host, i) => [
      '-device',
      `vfio-pci,id=device${i},host=${host},iommufd=iommufd0,bus=port${i}`,
    ]),
    ['-chardev', `socket,id=console,path=${channels[0]}`, '-serial', 'chardev:console'],
    ['-chardev', `socket,id=commands,path=${channels[1]}`],
    ['-device', 'virtio-serial-pci,bus=pcie.0', '-device', 'virtserialport,chardev=commands,name=commands'],
    ['-qmp', `unix:${channels[2]}`],
    ['-D', traces.qemu],
    ...TRACE_EVENTS.map((event) => ['-trace', event]),
  ].flat();
  const qemu = new QemuProcess(program, args);
  const ended = qemu.endReason();
  const sockets = await Promise.race([
    Promise.all(listeners.map(({ connection }) => connection)),
    ended.then((error) => {
      throw error;
    }),
  ]);
  const log = new KernelLog(sockets[0]);
  const shell = new GuestShell(sockets[1], log);
  const qmp = new Qmp(sockets[2]);
  void ended.then((error) => {
    log.end(error);
    shell.end(error);
  });
  try {
    await qmp.negotiate(LIMIT_MS);
  } catch {
    throw await ended;
  }
  return { qemu, qmp, shell, log, traces };
}

async function stop({ qemu, qmp }: Session): Promise<void> {
  // It may be gone before it has answered.
  await qmp.execute('quit', {}, LIMIT_MS).catch(() => {});
  await qemu.exited;
}

/** All that it has done so far: by its own trace, and by strace. */
const done = ({ traces }: Session): { trace: Entry[]; strace: Entry[] } => ({
  trace: readTrace(readFileSync(traces.qemu, 'latin1')),
  strace: readStrace(readFileSync(traces.strace, 'latin1')),
});

/** Does something, and notes what QEMU did until all was quiet. */
async function observe(session: Session, action: string, act: () => Promise<unknown>): Promise<void> {
  const before = done(session);
  await act();
  const after = await quiet(session);
  const entries = [...after.trace.slice(before.trace.length), ...after.strace.slice(before.strace.length)];
  observed.push({ action, entries });
}

/** Waits until QEMU has done nothing of interest for a while. @returns all that it has done. */
async function quiet(session: Session): Promise<ReturnType<typeof done>> {
  for (let before = -1; ;) {
    const now = done(session);
    const count = now.trace.length + now.strace.length;
    if (count === before) return now;
    before = count;
    await sleep(QUIET_MS);
  }
}

// Cold: what is there before the guest's first instruction, with one device, and with two.
for (const devices of [[rng, testdev], [rng]]) {
  const session = await start(devices);
  const { trace, strace } = await quiet(session);
  observed.push({ action: `start with ${devices.length} devices`, entries: [...trace, ...strace] });
  try {
    if (devices.length === 1) await live(session);
    await stop(session);
  } catch (error) {
    process.stderr.write(
      `QEMU said:\n${session.qemu.messages.slice(-4000)}\nits guest:\n${session.log.tail()}\n`,
    );
    process.stderr.write(`${JSON.stringify(observed)}\n`);
    throw error;
  }
}
process.stdout.write(`${JSON.stringify(observed)}\n`);
folder.remove();

async function live(session: Session): Promise<void> {
  const { qmp, shell } = session;
  /** Runs a script in the guest, in which $d is the folder of a device. @param id its PCI device id. */
  const withDevice = (id: string, script: string): Promise<string> =>
    shell.check(
      [
        'find() { grep -lx $1 /sys/bus/pci/devices/*/device; }',
        `for i in $(seq 100); do find ${id} && break; sleep 0.1; done > /tmp/found`,
        `d=$(find ${id}); d=\${d%/device}; [ -n "$d" ] || exit 1`,
        script,
      ].join('\n'),
      LIMIT_MS,
    );

  await observe(session, 'boot', async () => {
    await qmp.execute('cont');
    await shell.ready(1, LIMIT_MS);
  });
  await observe(session, 'read of random numbers', () =>
    shell.check('dd if=/dev/hwrng of=/dev/null bs=16 count=1', LIMIT_MS),
  );
  await observe(session, 'unbind', () => withDevice(VIRTIO_RNG, 'echo ${d##*/} > $d/driver/unbind'));
  await observe(session, 'to identity', () => withDevice(VIRTIO_RNG, 'echo identity > $d/iommu_group/type'));
  await observe(session, 'back to a domain', () => withDevice(VIRTIO_RNG, 'echo DMA > $d/iommu_group/type'));
  await observe(session, 'detach', () => withDevice(VIRTIO_RNG, 'echo 1 > $d/remove'));
  await observe(session, 'attach', async () => {
    // No driver, whose own mappings would be counted, too.
    await shell.check('echo 0 > /sys/bus/pci/drivers_autoprobe; echo 1 > /sys/bus/pci/rescan', LIMIT_MS);
    await withDevice(VIRTIO_RNG, 'true');
  });
  await observe(session, 'unplug', async () => {
    const gone = qmp.waitForEvent('DEVICE_DELETED', LIMIT_MS, ({ device }) => device === 'device0');
    await qmp.execute('device_del', { id: 'device0' }, LIMIT_MS);
    await gone;
  });
  await observe(session, 'hot plug', async () => {
    const device = { driver: 'vfio-pci', id: 'device1', host: testdev, iommufd: 'iommufd0', bus: 'port1' };
    await qmp.execute('device_add', device, LIMIT_MS);
    await withDevice(IOMMU_TESTDEV, 'true');
  });
  await observe(session, 'event', () =>
    withDevice(
      IOMMU_TESTDEV,
      [
        // Memory and bus master.
        "printf '\\006' | dd of=$d/config bs=1 seek=4 conv=notrunc",
        'read base rest < $d/resource',
        'w() { devmem $(printf 0x%x $((base + $1))) 32 $2; }',
        'w 0x04 0xdead0000; w 0x08 0; w 0x0c 4; w 0x18 0xa; w 0x14 1',
        'devmem $base 32',
        // It has to say that its write failed.
        '[ $(devmem $(printf 0x%x $((base + 0x10))) 32) = 0xDEAD0002 ]',
      ].join('\n'),
    ),
  );
  // It stays off, so that what its kernel does and what a reset does can be told apart.
  await observe(session, 'shutdown', async () => {
    const off = qmp.waitForEvent('SHUTDOWN', LIMIT_MS);
    shell.leave('poweroff -f');
    await off;
  });
  await observe(session, 'reset', () => qmp.execute('system_reset', {}, LIMIT_MS));
}
