import { readdirSync } from 'node:fs';
import { MessageChannel } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { CommandClient, CommandServer, RemoteError } from '../../src/qemu/command-channel.ts';
import { QemuError } from '../../src/qemu/errors.ts';
import { PollLoop } from '../../src/qemu/poll-loop.ts';
import { NO_SYSCALLS, onLinux, SYS } from '../support/syscalls.ts';

type Handlers = {
  add: (numbers: readonly number[]) => number;
  fail: (code: 'plain' | 'coded') => never;
};

/** Both ends in one thread: the client's calls are asynchronous, the server takes them in a turn of its loop. */
function channel(): {
  client: CommandClient<Handlers, string>;
  server: CommandServer<Handlers, string>;
  loop: PollLoop;
  events: string[];
} {
  const { port1, port2 } = new MessageChannel();
  const events: string[] = [];
  const client = new CommandClient<Handlers, string>(SYS, port1, (event) => events.push(event));
  const loop = new PollLoop(SYS);
  const server = new CommandServer<Handlers, string>(SYS, loop, port2, client.wakeFd, {
    add: (numbers) => numbers.reduce((sum, n) => sum + n, 0),
    fail: (code) => {
      if (code === 'coded') throw new QemuError('REFUSED', 'no', 'try yes');
      throw new Error('broken');
    },
  });
  return { client, server, loop, events };
}

const fds = (): number => readdirSync('/proc/self/fd').length;

describe.skipIf(NO_SYSCALLS !== '')(onLinux('a call'), () => {
  it('fails with the message, code and hint of the other side', async () => {
    const { client, server, loop } = channel();
    const coded = client.call('fail', 'coded');
    const plain = client.call('fail', 'plain');
    loop.turn(-1);
    await expect(coded).rejects.toMatchObject({ message: 'no', code: 'REFUSED', hint: 'try yes' });
    await expect(plain).rejects.toMatchObject({ message: 'broken', code: undefined, hint: undefined });
    await expect(coded).rejects.toBeInstanceOf(RemoteError);
    server.close();
    client.close();
  });

  it('of a name that is not there fails, also one that every object has', async () => {
    const { client, server, loop } = channel();
    const odd = client as unknown as CommandClient<Record<string, () => void>>;
    const calls = [odd.call('nothing', undefined), odd.call('toString', undefined)];
    loop.turn(-1);
    for (const call of calls) await expect(call).rejects.toMatchObject({ code: 'PROTOCOL' });
    server.close();
    client.close();
  });

  it('fails when the channel ends, and so does every later one', async () => {
    const { client, server } = channel();
    const call = client.call('add', [1]);
    server.close();
    client.close(new Error('the worker is gone'));
    client.close();
    await expect(call).rejects.toThrow('the worker is gone');
    await expect(client.call('add', [1])).rejects.toThrow('the worker is gone');
  });

  it('is carried out in order, as many as came, and made before the loop turns', async () => {
    const before = fds();
    const { client, server, loop } = channel();
    const calls = [client.call('add', [1, 2]), client.call('add', [3, 4]), client.call('add', [])];
    loop.turn(-1);
    expect(await Promise.all(calls)).toEqual([3, 7, 0]);
    // The eventfd is empty again: nothing wakes the loop.
    loop.turn(0);
    server.close();
    client.close();
    expect(fds()).toBe(before);
  });

  it('is not needed for the other side to tell something', async () => {
    const { client, server, loop, events } = channel();
    server.emit('first');
    const call = client.call('add', [1]);
    loop.turn(-1);
    server.emit('second');
    await call;
    await new Promise((resolve) => setImmediate(resolve));
    expect(events).toEqual(['first', 'second']);
    server.close();
    client.close();
  });
});
