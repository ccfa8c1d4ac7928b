import { describe, expect, it } from 'vitest';
import { GROUPS_MAX, PageRequestBridge, type PageRequestSink } from '../../src/accel/page-request-bridge.ts';
import { PAGE_REQUEST, PageRequest, type PageRequestStatus } from '../../src/smmu/page-request.ts';
import { FaultKernel, fault, joined } from '../support/fault-kernel.ts';

/** Devices 1 and 2 have StreamIDs 0x11 and 0x12. */
class Guest implements PageRequestSink {
  readonly requests: PageRequest[] = [];
  status: PageRequestStatus = PAGE_REQUEST.Queued;
  onRequest: (request: PageRequest) => void = () => {};
  pageRequest(request: PageRequest): PageRequestStatus {
    this.requests.push(Object.assign(new PageRequest(), request));
    this.onRequest(request);
    return this.status;
  }
  sidOf(deviceId: number): number {
    return deviceId === 1 || deviceId === 2 ? 0x10 + deviceId : -1;
  }
}

function setUp() {
  const kernel = new FaultKernel();
  const guest = new Guest();
  const bridge = new PageRequestBridge(guest);
  bridge.open(kernel.queue());
  const turn = (...records: Uint8Array[]): void => {
    kernel.reads.push(joined(...records));
    kernel.callback?.();
  };
  const balanced = (): void => {
    const { read, retried, aborted, released, ended, forgotten } = bridge.counters;
    expect(retried + aborted + released + ended + forgotten + bridge.outstanding).toBe(read);
  };
  return { kernel, guest, bridge, turn, balanced };
}
const part = { flags: 0 };
const SUCCESS = 0;
const INVALID = 1;
/** Values of CMD_PRI_RESP.Resp. */
const RESP = { Failure: 0, Invalid: 1, Success: 2 };

describe('a group', () => {
  it('is handed on as it came, and one answer is for all of it', () => {
    const { kernel, guest, bridge, turn, balanced } = setUp();
    turn(
      fault({ ...part, grpid: 7, addr: 0x1000n, perm: 1, cookie: 3 }),
      fault({ ...part, grpid: 7, addr: 0xffff_0000_0000_2abcn, perm: 2, cookie: 3 }),
      fault({ flags: 3, pasid: 5, grpid: 7, addr: 0x3000n, perm: 1 | 4 | 8, cookie: 3 }),
    );
    expect(guest.requests.map(({ last, prgIndex, sid }) => [sid, prgIndex, last])).toEqual([
      [0x11, 7, false],
      [0x11, 7, false],
      [0x11, 7, true],
    ]);
    expect(guest.requests[1]).toMatchObject({
      addrHi: 0xffff_0000,
      addrLo: 0x2000,
      read: false,
      write: true,
    });
    expect(guest.requests[2]).toMatchObject({ ssv: true, ssid: 5, execute: true, privileged: true });
    bridge.respond(0x11, false, 0, 7, RESP.Success);
    expect(kernel.answers).toEqual([`3:${SUCCESS}`]);
    balanced();
  });

  it.each([
    [RESP.Success, SUCCESS],
    [RESP.Invalid, INVALID],
    [RESP.Failure, INVALID],
  ])('CMD_PRI_RESP with Resp=%i is answer %i', (response, code) => {
    const { kernel, bridge, turn } = setUp();
    turn(fault({ grpid: 1, cookie: 3 }));
    bridge.respond(0x11, true, 9, 1, response);
    bridge.respond(0x11, true, 9, 1, response);
    bridge.respond(0x12, true, 9, 1, response);
    expect(kernel.answers).toEqual([`3:${code}`]);
    expect(bridge.counters.unknown).toBe(2);
  });

  it('that the PRI queue answers by itself is over: the rest of it is not shown', () => {
    const { kernel, guest, bridge, turn, balanced } = setUp();
    guest.status = PAGE_REQUEST.Discarded;
    guest.onRequest = ({ sid, prgIndex }) => bridge.respond(sid, false, 0, prgIndex, RESP.Failure);
    turn(
      fault({ ...part, grpid: 1, cookie: 1 }),
      fault({ grpid: 1, cookie: 1 }),
      fault({ grpid: 2, cookie: 2 }),
    );
    expect(guest.requests).toHaveLength(2);
    expect(kernel.answers).toEqual([`1:${INVALID}`, `2:${INVALID}`]);
    expect(bridge.outstanding).toBe(0);
    balanced();
  });
});

describe('a host that gives garbage', () => {
  it('groups of nobody, of an index that cannot be or is in use are ended unseen', () => {
    const { kernel, guest, bridge, turn, balanced } = setUp();
    turn(
      fault({ dev_id: 9, grpid: 1, cookie: 1 }),
      fault({ ...part, grpid: 512, cookie: 2 }),
      fault({ grpid: 512, cookie: 2 }),
      fault({ grpid: 3, cookie: 3 }),
      fault({ grpid: 3, cookie: 4 }),
    );
    expect(guest.requests).toHaveLength(1);
    expect(kernel.answers).toEqual([`1:${INVALID}`, `2:${INVALID}`, `4:${INVALID}`]);
    expect(bridge.outstanding).toBe(1);
    balanced();
  });

  it('no more groups wait than there may', () => {
    const { kernel, bridge } = setUp();
    let cookie = 0;
    for (let i = 0; i < 100; i++) {
      kernel.reads.push(
        joined(
          ...Array.from({ length: 200 }, () =>
            fault({ dev_id: 1 + (cookie % 2), grpid: cookie % 512, cookie: ++cookie }),
          ),
        ),
      );
      kernel.callback?.();
    }
    expect(bridge.outstanding).toBeLessThanOrEqual(GROUPS_MAX);
  });
});

it('what the host has ended is forgotten, in the middle of a read too', () => {
  const { kernel, guest, bridge, turn, balanced } = setUp();
  guest.onRequest = () => bridge.forget(1);
  turn(
    fault({ grpid: 1, cookie: 1 }),
    fault({ grpid: 2, cookie: 2 }),
    fault({ dev_id: 2, grpid: 1, cookie: 3 }),
  );
  expect(guest.requests.map(({ sid }) => sid)).toEqual([0x11, 0x12]);
  expect(bridge.outstanding).toBe(1);
  expect(kernel.answers).toEqual([]);
  balanced();
});

it('closing ends everything, from inside an interrupt too', () => {
  const { kernel, guest, bridge, turn, balanced } = setUp();
  guest.onRequest = () => bridge.close();
  turn(fault({ grpid: 1, cookie: 1 }), fault({ grpid: 2, cookie: 2 }));
  expect(kernel.answers).toEqual([`1:${INVALID}`, `2:${INVALID}`]);
  bridge.respond(0x11, false, 0, 1, RESP.Success);
  expect(bridge.counters.unknown).toBe(1);
  balanced();
});
