import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { QemuError } from '../../src/qemu/errors.ts';
import { Qmp } from '../../src/qemu/qmp.ts';
import { answerLines, type SocketPair, socketPair } from '../support/socket-pair.ts';

const GREETING =
  '{"QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}}, "capabilities": ["oob"]}}\r\n';

interface Request {
  execute: string;
  arguments?: Record<string, unknown>;
  id: number;
}

let pair: SocketPair;
let qmp: Qmp;

beforeEach(async () => {
  pair = await socketPair();
  qmp = new Qmp(pair.near);
});

afterEach(() => {
  pair.close();
});

/** A QEMU that greets and answers; `answer` gives the body of the answer without the id. */
function peer(answer: (request: Request) => object | undefined): Request[] {
  const seen: Request[] = [];
  answerLines(pair.far, (line) => {
    const request = JSON.parse(line) as Request;
    seen.push(request);
    const body = answer(request);
    return body && `${JSON.stringify({ ...body, id: request.id })}\r\n`;
  });
  pair.far.write(GREETING);
  return seen;
}

const code = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'no error',
    (error: unknown) => (error instanceof QemuError ? error.code : String(error)),
  );

describe('a broken peer', () => {
  it('that says nothing makes negotiation time out', async () => {
    expect(await code(qmp.negotiate(20))).toBe('TIMEOUT');
  });

  it('that closes before it greets makes negotiation fail', async () => {
    pair.far.end();
    expect(await code(qmp.negotiate())).toBe('CLOSED');
  });

  it.each([
    ['text that is not JSON', 'hello\n'],
    ['an array', '[1, 2]\n'],
    ['a number', '7\n'],
    ['null', 'null\n'],
    ['an error without an id', '{"error": {"class": "GenericError", "desc": "JSON parse error"}}\n'],
    ['a return without an id', '{"return": {}}\n'],
    ['an id that is not a number', '{"return": {}, "id": "1"}\n'],
  ])('that sends %s is left', async (_, text) => {
    pair.far.write(text);
    expect((await qmp.closed).code).toBe('PROTOCOL');
  });

  it('that sends an endless line is left, however long it goes on', async () => {
    const flood = setInterval(() => pair.far.write('x'.repeat(1 << 18)), 1);
    const error = await qmp.closed;
    clearInterval(flood);
    expect(error.code).toBe('PROTOCOL');
    expect(error.message).toContain('line of more than');
  });

  it('that closes fails every command that waits', async () => {
    peer(({ execute }) => {
      if (execute !== 'stop') return { return: {} };
      pair.far.destroy();
      return undefined;
    });
    await qmp.negotiate();
    const waiting = [qmp.execute('query-status'), qmp.execute('stop'), qmp.execute('stop')];
    expect(await code(waiting[1] ?? Promise.resolve())).toBe('CLOSED');
    expect(await code(waiting[2] ?? Promise.resolve())).toBe('CLOSED');
    await waiting[0];
    expect(await code(qmp.execute('query-status'))).toBe('CLOSED');
  });

  it('that answers a command twice does not disturb the next', async () => {
    answerLines(pair.far, (line) => {
      const { id } = JSON.parse(line) as Request;
      return `{"return": ${id}, "id": ${id}}\n{"return": "again", "id": ${id}}\n`;
    });
    pair.far.write(GREETING);
    await qmp.negotiate();
    expect(await qmp.execute('a')).toBe(2);
    expect(await qmp.execute('b')).toBe(3);
  });

  it('that answers neither with return nor with error fails that command only', async () => {
    peer(({ execute }) => (execute === 'odd' ? {} : { return: 1 }));
    await qmp.negotiate();
    expect(await code(qmp.execute('odd'))).toBe('PROTOCOL');
    expect(await qmp.execute('even')).toBe(1);
  });
});

describe('a good peer', () => {
  it('is asked to leave capability negotiation first', async () => {
    const seen = peer(() => ({ return: {} }));
    await qmp.negotiate();
    expect(seen.map(({ execute }) => execute)).toEqual(['qmp_capabilities']);
  });

  it('gets arguments only if there are any', async () => {
    const seen = peer(() => ({ return: {} }));
    await qmp.negotiate();
    await qmp.execute('cont');
    await qmp.execute('device_del', { id: 'nvme0' });
    expect(seen[1]).not.toHaveProperty('arguments');
    expect(seen[2]?.arguments).toEqual({ id: 'nvme0' });
  });

  it("is quoted when it refuses, in QEMU's own words", async () => {
    peer(({ execute }) =>
      execute === 'device_add'
        ? { error: { class: 'GenericError', desc: 'PCI: slot 0 function 0 already occupied' } }
        : { return: {} },
    );
    await qmp.negotiate();
    await expect(qmp.execute('device_add')).rejects.toThrow(
      /device_add: PCI: slot 0 function 0 already occupied/,
    );
    expect(await code(qmp.execute('device_add'))).toBe('REFUSED');
  });

  it('may answer in another order than it was asked', async () => {
    const held: Request[] = [];
    answerLines(pair.far, (line) => {
      const request = JSON.parse(line) as Request;
      if (request.execute === 'qmp_capabilities') return `{"return": {}, "id": ${request.id}}\n`;
      held.push(request);
      if (held.length < 2) return undefined;
      return held
        .toReversed()
        .map(({ execute, id }) => `{"return": "${execute}", "id": ${id}}\n`)
        .join('');
    });
    pair.far.write(GREETING);
    await qmp.negotiate();
    expect(await Promise.all([qmp.execute('first'), qmp.execute('second')])).toEqual(['first', 'second']);
  });

  it('may send an answer in pieces, a character at a time', async () => {
    const text = `${GREETING}{"return": {"running": true}, "id": 1}\n`;
    answerLines(pair.far, () => undefined);
    const negotiated = qmp.negotiate();
    for (const character of text) {
      pair.far.write(character);
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    }
    await negotiated;
  });

  it('reports events to those who listen and to nobody else', async () => {
    peer(() => ({ return: {} }));
    await qmp.negotiate();
    const names: string[] = [];
    const stop = qmp.onEvent(({ event }) => names.push(event));
    const reset = qmp.waitForEvent('RESET');
    pair.far.write('{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}\n');
    pair.far.write('{"event": "RESET", "data": {"guest": true, "reason": "guest-reset"}}\n');
    expect(await reset).toEqual({ event: 'RESET', data: { guest: true, reason: 'guest-reset' } });
    stop();
    const last = qmp.waitForEvent('RESUME');
    pair.far.write('{"event": "RESUME"}\n');
    await last;
    expect(names).toEqual(['STOP', 'RESET']);
  });

  it('keeps those waiting whose event is about another device', async () => {
    peer(() => ({ return: {} }));
    await qmp.negotiate();
    const gone = qmp.waitForEvent('DEVICE_DELETED', 1000, ({ device }) => device === 'b');
    pair.far.write('{"event": "DEVICE_DELETED", "data": {"device": "a"}}\n');
    pair.far.write('{"event": "DEVICE_DELETED", "data": {"device": "b"}}\n');
    expect((await gone).data).toEqual({ device: 'b' });
  });
});
