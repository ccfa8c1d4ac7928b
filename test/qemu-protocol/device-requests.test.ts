import { describe, expect, it } from 'vitest';
import {
  Bench,
  concat,
  dmaMap,
  dmaUnmap,
  getInfo,
  getIrqInfo,
  getRegionInfo,
  message,
  pack,
  RecordingDevice,
  regionRead,
  regionWrite,
  reset,
  setIrqs,
} from '../support/vfio-user.ts';

const MiB = 0x10_0000;
const RAM = 0x4000_0000;
const REPLY = 1;

describe('a device', () => {
  it('is described as QEMU reads it', () => {
    const bench = Bench.ready();
    expect(bench.ask(getInfo()).payload).toEqual(pack([4, 16], [4, 3], [4, 9], [4, 5]));
    expect(bench.ask(getRegionInfo(0)).payload).toEqual(
      pack([4, 32], [4, 3], [4, 0], [4, 0], [8, 0x1000], [8, 0]),
    );
    expect(bench.ask(getRegionInfo(6, 100)).payload).toEqual(
      pack([4, 32], [4, 1], [4, 6], [4, 0], [8, 0x100], [8, 0]),
    );
    expect(bench.ask(getIrqInfo(1)).payload).toEqual(pack([4, 16], [4, 9], [4, 1], [4, 4]));
  });

  it('gives the descriptor of a region that can be mapped, and keeps it', () => {
    const device = new RecordingDevice();
    device.regions[2] = Object.assign(
      { size: 0x2000, readable: true, writable: true },
      { memory: { fd: 55, offset: 0x3000 } },
    );
    const bench = Bench.ready(device);
    expect(bench.ask(getRegionInfo(2)).payload).toEqual(
      pack([4, 32], [4, 7], [4, 2], [4, 0], [8, 0x2000], [8, 0x3000]),
    );
    expect(bench.sentFds).toEqual([55]);
  });

  it('is read and written, one message an access, whatever its size', () => {
    const bench = Bench.ready();
    const reply = bench.ask(regionWrite(0, 0x80, [1, 2, 3, 4, 5, 6, 7, 8]));
    expect(reply.payload).toEqual(pack([8, 0x80], [4, 0], [4, 8]));
    expect(bench.ask(regionRead(0, 0x81, 3)).payload).toEqual(
      concat(pack([8, 0x81], [4, 0], [4, 3]), Uint8Array.of(2, 3, 4)),
    );
    expect(bench.device.calls).toEqual(['write 0 128 1,2,3,4,5,6,7,8', 'read 0 129 3']);
  });

  it('that fills in nothing answers zeros, not an earlier answer', () => {
    const bench = Bench.ready();
    bench.device.bar.fill(0xaa);
    bench.ask(regionRead(0, 0, 64));
    expect(bench.ask(regionRead(7, 0, 64)).payload.subarray(16)).toEqual(new Uint8Array(64));
  });

  it('takes several writes in one message, in order', () => {
    const bench = Bench.ready();
    const writes = concat(
      pack([8, 2]),
      pack([8, 0x10], [4, 0], [4, 4], [8, 0x0403_0201]),
      pack([8, 0x20], [4, 0], [4, 1], [8, 0xff]),
    );
    expect(bench.ask(message(15, writes)).payload).toEqual(pack([8, 2]));
    expect(bench.device.calls).toEqual(['write 0 16 1,2,3,4', 'write 0 32 255']);
  });

  it('says nothing to a command that wants no reply, not even an error', () => {
    const bench = Bench.ready();
    bench.session.receive(regionWrite(0, 0, [9], { flags: 0x10 }), []);
    bench.session.receive(regionWrite(0, 0x2000, [9], { flags: 0x10 }), []);
    expect(bench.sent()).toEqual([]);
    expect(bench.device.calls).toEqual(['write 0 0 9']);
    expect(bench.session.violations).toBe(1);
  });

  it('is reset', () => {
    const bench = Bench.ready();
    expect(bench.ask(reset())).toMatchObject({ command: 13, flags: REPLY, error: 0 });
    expect(bench.device.calls).toEqual(['reset']);
  });

  it('gets memory with its descriptor, which is closed after the call', () => {
    const bench = Bench.ready();
    const [fd] = bench.fds(1);
    expect(bench.ask(dmaMap(RAM, 512 * MiB, { offset: 4096 }), [fd]).error).toBe(0);
    expect(bench.device.windows.get(RAM)).toEqual({
      address: RAM,
      size: 512 * MiB,
      readable: true,
      writable: true,
      fd,
      offset: 4096,
    });
    expect(bench.openFds.size).toBe(0);
    expect(bench.ask(dmaUnmap(RAM, 512 * MiB)).payload).toEqual(
      pack([4, 24], [4, 0], [8, RAM], [8, 512 * MiB]),
    );
    expect(bench.device.windows.size).toBe(0);
  });

  it('gets memory that is not shared, and memory to read only', () => {
    const bench = Bench.ready();
    bench.ask(dmaMap(RAM, MiB, { flags: 1 }));
    expect(bench.device.windows.get(RAM)).toMatchObject({ fd: undefined, writable: false });
  });

  it('loses all memory at once', () => {
    const bench = Bench.ready();
    bench.ask(dmaMap(RAM, MiB));
    bench.ask(dmaMap(0, MiB));
    expect(bench.ask(dmaUnmap(0, 0, { flags: 2 })).error).toBe(0);
    expect(bench.device.windows.size).toBe(0);
  });

  it('loses memory, interrupts and its link when the connection ends, once', () => {
    const bench = Bench.ready();
    bench.ask(dmaMap(RAM, MiB), bench.fds(1));
    bench.ask(setIrqs(0x24, 1, 0, 4), bench.fds(4));
    const { link } = bench.device;
    bench.device.calls.length = 0;
    expect(bench.openFds.size).toBe(4);
    bench.session.end();
    bench.session.end();
    expect(bench.openFds.size).toBe(0);
    expect(bench.device.calls).toEqual([`unmap ${RAM} ${MiB}`, 'disconnected']);
    expect(link!.dmaWrite(0, Uint8Array.of(1))).toBe(107);
    expect(link!.interrupt(1, 0)).toBe(false);
    expect(bench.session.receive(reset(), bench.fds(1))).toBe(false);
    expect(bench.openFds.size).toBe(0);
  });
});

describe('an interrupt', () => {
  const EVENTFD = 0x24;

  it('goes to the eventfd of its vector', () => {
    const bench = Bench.ready();
    const fds = bench.fds(3);
    expect(bench.ask(setIrqs(EVENTFD, 1, 1, 3), fds).error).toBe(0);
    expect(bench.device.link!.interrupt(1, 0)).toBe(false);
    expect(bench.device.link!.interrupt(1, 3)).toBe(true);
    expect(bench.device.link!.interrupt(1, 1)).toBe(true);
    expect(bench.device.link!.interrupt(1, 4)).toBe(false);
    expect(bench.device.link!.interrupt(7, 0)).toBe(false);
    expect(bench.signals).toEqual([fds[2], fds[0]]);
  });

  it('loses its eventfd to the next one, to none, and to the end of all', () => {
    const bench = Bench.ready();
    bench.ask(setIrqs(EVENTFD, 1, 0, 4), bench.fds(4));
    bench.ask(setIrqs(EVENTFD, 1, 0, 2), bench.fds(2));
    expect(bench.openFds.size).toBe(4);
    bench.ask(setIrqs(EVENTFD, 1, 0, 1));
    expect(bench.openFds.size).toBe(3);
    expect(bench.device.link!.interrupt(1, 0)).toBe(false);
    expect(bench.ask(setIrqs(0x21, 1, 0, 0)).error).toBe(0);
    expect(bench.openFds.size).toBe(0);
  });

  it('on INTx masks itself, and one that comes meanwhile goes out at the unmask', () => {
    const bench = Bench.ready();
    const [fd] = bench.fds(1);
    bench.ask(setIrqs(EVENTFD, 0, 0, 1), [fd]);
    const { link } = bench.device;
    expect(link!.interrupt(0, 0)).toBe(true);
    expect(link!.interrupt(0, 0)).toBe(true);
    expect(link!.interrupt(0, 0)).toBe(true);
    expect(bench.signals).toEqual([fd]);
    bench.ask(setIrqs(0x11, 0, 0, 1));
    expect(bench.signals).toEqual([fd, fd]);
    bench.ask(setIrqs(0x11, 0, 0, 1));
    bench.ask(setIrqs(0x11, 0, 0, 1));
    expect(bench.signals).toEqual([fd, fd]);
    link!.interrupt(0, 0);
    expect(bench.signals).toEqual([fd, fd, fd]);
  });

  it('is masked by the client, and triggered by it', () => {
    const bench = Bench.ready();
    const [fd] = bench.fds(1);
    bench.ask(setIrqs(EVENTFD, 0, 0, 1), [fd]);
    bench.ask(setIrqs(0x0a, 0, 0, 1, [0]));
    bench.ask(setIrqs(0x21, 0, 0, 1));
    expect(bench.signals).toEqual([fd]);
    bench.ask(setIrqs(0x12, 0, 0, 1, [1]));
    bench.ask(setIrqs(0x0a, 0, 0, 1, [1]));
    bench.device.link!.interrupt(0, 0);
    expect(bench.signals).toEqual([fd]);
  });
});
