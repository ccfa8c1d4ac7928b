import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PollLoop } from '../../src/qemu/poll-loop.ts';
import { POLLHUP, POLLIN, POLLNVAL, POLLOUT } from '../../src/sys/linux.ts';
import type { Syscalls } from '../../src/sys/syscalls.ts';
import { NO_SYSCALLS, onLinux, SYS } from '../support/syscalls.ts';

const ONE = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);

/** A queue of tasks, as a machine has one. */
class Queue {
  readonly tasks: (() => void)[] = [];

  get idle(): boolean {
    return this.tasks.length === 0;
  }

  run(limit: number): void {
    for (let i = 0; i < limit && this.tasks.length > 0; i++) this.tasks.shift()!();
  }
}

describe.skipIf(NO_SYSCALLS !== '')(onLinux('the loop'), () => {
  let open: number[];
  let loop: PollLoop;

  beforeEach(() => {
    open = [];
    loop = new PollLoop(SYS);
  });
  afterEach(() => {
    for (const fd of open) SYS.close(fd);
  });

  const eventfd = (raised: boolean): number => {
    const fd = SYS.eventfd();
    open.push(fd);
    if (raised) SYS.write(fd, ONE);
    return fd;
  };

  it('says that a descriptor is closed', () => {
    const seen: number[] = [];
    const watched = loop.watch(12345, { readable: true }, (revents) => seen.push(revents));
    loop.turn(-1);
    watched.stop();
    loop.turn(0);
    expect(seen).toEqual([POLLNVAL]);
  });

  it('does not look at what nobody watches any more, even in the same turn', () => {
    const seen: string[] = [];
    const second = { stop: (): void => {} };
    const first = loop.watch(eventfd(true), { readable: true }, () => {
      seen.push('first');
      second.stop();
    });
    const watched = loop.watch(eventfd(true), { readable: true }, () => seen.push('second'));
    second.stop = () => watched.stop();
    loop.turn(-1);
    loop.turn(0);
    expect(seen).toEqual(['first', 'first']);
    first.stop();
    first.stop();
    loop.turn(0);
    expect(seen).toHaveLength(2);
  });

  it('looks at a new descriptor from the next turn on', () => {
    const seen: string[] = [];
    const late = eventfd(true);
    const first = loop.watch(eventfd(true), { readable: true }, () => {
      seen.push('first');
      first.stop();
      loop.watch(late, { readable: true }, () => seen.push('late'));
    });
    loop.turn(-1);
    expect(seen).toEqual(['first']);
    loop.turn(-1);
    expect(seen).toEqual(['first', 'late']);
  });

  it('waits for what is wanted, and always tells the end of a stream', () => {
    const [a, b] = SYS.socketpair() as readonly [number, number];
    open.push(a);
    const seen: number[] = [];
    const watched = loop.watch(a, { readable: true }, (revents) => seen.push(revents));
    loop.turn(0);
    expect(seen).toEqual([]);
    watched.want({ writable: true });
    loop.turn(-1);
    expect(seen).toEqual([POLLOUT]);
    watched.want({});
    loop.turn(0);
    SYS.close(b);
    loop.turn(-1);
    expect(seen).toEqual([POLLOUT, POLLHUP]);
  });

  it('does not wait while tasks remain, and looks at descriptors between slices of them', () => {
    const queue = new Queue();
    const busy = new PollLoop(SYS, queue);
    const fd = eventfd(true);
    const log: string[] = [];
    busy.watch(fd, { readable: true }, () => log.push(`event after ${log.length} tasks`));
    for (let i = 0; i < 100; i++) queue.tasks.push(() => log.push('task'));
    busy.turn(-1);
    expect(log.slice(0, 2)).toEqual(['event after 0 tasks', 'task']);
    busy.turn(-1);
    expect(log.indexOf('event after 65 tasks')).toBe(65);
    expect(log).toHaveLength(102);
    // A task that always puts off another one starves nobody.
    const forever = (): void => void queue.tasks.push(forever);
    forever();
    const before = log.length;
    busy.turn(-1);
    busy.turn(-1);
    expect(log).toHaveLength(before + 2);
  });

  it('asks poll to wait only when there is nothing else to do', () => {
    const queue = new Queue();
    const waits: number[] = [];
    const sys: Syscalls = Object.assign(Object.create(SYS) as Syscalls, {
      ppoll: (_pollfds: Uint8Array, _count: number, timeoutMs: number) => {
        waits.push(timeoutMs);
        return 0;
      },
    });
    const busy = new PollLoop(sys, queue);
    for (let i = 0; i < 65; i++) queue.tasks.push(() => {});
    busy.turn(-1);
    busy.turn(-1);
    busy.turn(-1);
    expect(waits).toEqual([0, 0, -1]);
  });

  it('runs until it is told to stop, and finishes the turn', () => {
    const log: string[] = [];
    loop.watch(eventfd(true), { readable: true }, () => {
      log.push('stop');
      loop.stop();
    });
    loop.watch(eventfd(true), { readable: true }, (revents) => log.push(`readable ${revents === POLLIN}`));
    loop.run();
    expect(log).toEqual(['stop', 'readable true']);
  });

  it('runs what was put off when its time has come, and waits no longer for a descriptor than until then', () => {
    const done: string[] = [];
    loop.after(20, () => done.push('later'));
    loop.after(0, () => done.push('now'));
    loop.turn(0);
    expect(done).toEqual(['now']);
    while (done.length < 2) loop.turn(60_000);
    expect(done).toEqual(['now', 'later']);
  });
});
