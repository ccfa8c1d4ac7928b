import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { QemuError } from '../../src/qemu/errors.ts';
import { hiddenBusWrites, programHiddenBus } from '../../src/qemu/hidden-bus.ts';
import { Qtest } from '../../src/qemu/qtest.ts';
import { answerLines, type SocketPair, socketPair } from '../support/socket-pair.ts';

let pair: SocketPair;
let qtest: Qtest;

beforeEach(async () => {
  pair = await socketPair();
  qtest = new Qtest(pair.near);
});

afterEach(() => {
  pair.close();
});

const code = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'no error',
    (error: unknown) => (error instanceof QemuError ? error.code : String(error)),
  );

describe('a broken peer', () => {
  it.each([['hello\n'], ['\n'], ['OK\n'], ['FAIL nothing was asked\n']])(
    'that sends %j unasked is left',
    async (text) => {
      pair.far.write(text);
      expect((await qtest.closed).code).toBe('PROTOCOL');
    },
  );

  it('that answers a read with something else than a number fails that read', async () => {
    const answers = ['OK\n', 'OK 12\n', 'OK 0x\n', 'OK 0x11112222333344445\n'];
    answerLines(pair.far, () => answers.shift());
    for (let i = 0; i < 4; i++) expect(await code(qtest.read(0, 4))).toBe('PROTOCOL');
  });

  it('that closes fails every command that waits', async () => {
    const waiting = [qtest.read(0, 4), qtest.write(0, 4, 1)].map(code);
    pair.far.destroy();
    expect(await Promise.all(waiting)).toEqual(['CLOSED', 'CLOSED']);
    expect(await code(qtest.read(0, 4))).toBe('CLOSED');
  });

  it('that answers late does not give its answer to the next command', async () => {
    const lines: string[] = [];
    answerLines(pair.far, (line) => {
      lines.push(line);
      return lines.length === 2 ? 'OK 0x1\nOK 0x2\n' : undefined;
    });
    expect(await code(qtest.command('readl 0x10', 10))).toBe('TIMEOUT');
    expect(await qtest.read(0x20, 4)).toBe(2n);
  });
});

describe('a good peer', () => {
  it('gets each access in the width that was asked for', async () => {
    const seen = answerLines(pair.far, () => 'OK\n');
    await qtest.write(0x40_1800_0018, 4, 0x818180);
    await qtest.write(0x40_1800_0004, 2, 6);
    await qtest.write(0x10, 1, 0xff);
    await qtest.write(0x10, 8, 0xffff_ffff_ffff_ffffn);
    expect(seen).toEqual([
      'writel 0x4018000018 0x818180',
      'writew 0x4018000004 0x6',
      'writeb 0x10 0xff',
      'writeq 0x10 0xffffffffffffffff',
    ]);
  });

  it('answers reads with 64 bits', async () => {
    answerLines(pair.far, () => 'OK 0xffffffff8765_4321\n'.replace('_', ''));
    expect(await qtest.read(0, 8)).toBe(0xffff_ffff_8765_4321n);
  });

  it('gets several commands in one go, and each answer goes to its command', async () => {
    const seen = answerLines(pair.far, (line) => `OK ${line.slice(-1)}\n`);
    expect(await qtest.commands(['readl 0x1', 'readl 0x2', 'readl 0x3'])).toEqual([['1'], ['2'], ['3']]);
    expect(seen).toEqual(['readl 0x1', 'readl 0x2', 'readl 0x3']);
    expect(await qtest.commands([])).toEqual([]);
  });

  it('is quoted when it refuses one of several, and the next commands have their own answers', async () => {
    answerLines(pair.far, (line) => (line === 'b' ? 'FAIL Unknown command\n' : `OK ${line}\n`));
    await expect(qtest.commands(['a', 'b', 'c'])).rejects.toThrow(/"b": Unknown command/);
    expect(await qtest.command('d')).toEqual(['d']);
  });

  it('is not given more commands than it may keep waiting', async () => {
    const seen = answerLines(pair.far, () => 'OK\n');
    expect(await code(qtest.commands(Array.from({ length: 257 }, () => 'a')))).toBe('PROTOCOL');
    expect(await qtest.commands(Array.from({ length: 256 }, () => 'a'))).toHaveLength(256);
    expect(seen).toHaveLength(256);
  });

  it('is quoted when it refuses', async () => {
    answerLines(pair.far, () => 'FAIL Unknown command\n');
    await expect(qtest.command('fly')).rejects.toThrow(/"fly": Unknown command/);
  });

  it('never gets two commands out of one', async () => {
    const seen = answerLines(pair.far, () => 'OK\n');
    expect(await code(qtest.command('readl 0x0\nwritel 0x0 0x0'))).toBe('PROTOCOL');
    expect(await code(qtest.commands(['readl 0x0', 'readl 0x0\rreadl 0x4']))).toBe('PROTOCOL');
    await qtest.command('endianness');
    expect(seen).toEqual(['endianness']);
  });
});

describe('the hidden bus', () => {
  it('is programmed with the five writes that were seen to work', async () => {
    const seen = answerLines(pair.far, () => 'OK\n');
    await programHiddenBus(qtest);
    expect(seen).toEqual([
      'writel 0x4018000018 0x818180',
      'writel 0x4018000020 0x3e003e00',
      'writew 0x4018000004 0x6',
      'writel 0x4018100010 0x3e000000',
      'writew 0x4018100004 0x6',
    ]);
    expect(hiddenBusWrites()).toHaveLength(5);
  });
});
