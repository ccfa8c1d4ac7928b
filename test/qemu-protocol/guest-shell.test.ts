import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { QemuError } from '../../src/qemu/errors.ts';
import { GuestShell } from '../../src/qemu/guest-shell.ts';
import { KernelLog } from '../../src/qemu/kernel-log.ts';
import { answerLines, type SocketPair, socketPair } from '../support/socket-pair.ts';

let pair: SocketPair;
let log: KernelLog;
let shell: GuestShell;

beforeEach(async () => {
  pair = await socketPair();
  log = new KernelLog();
  shell = new GuestShell(pair.near, log);
});

afterEach(() => {
  pair.close();
});

const code = async (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'no error',
    (error: unknown) => (error instanceof QemuError ? error.code : String(error)),
  );

/** A guest whose init works; `run` gives output and status of a script. */
function guest(run: (script: string) => { output: string; status: number } | string | undefined): void {
  answerLines(pair.far, (line) => {
    const [id = '', encoded = ''] = line.split(' ');
    const result = run(Buffer.from(encoded, 'base64').toString());
    if (result === undefined || typeof result === 'string') return result?.replaceAll('ID', id);
    return `@vsmmu begin ${id}\n${result.output}\n@vsmmu end ${id} ${result.status}\n`;
  });
}

describe('a guest that does not do as it should', () => {
  it('and never gets ready gives an error with the last lines of its console', async () => {
    log.append('Booting Linux\r\nVFS: Cannot open root device\r\n');
    await expect(shell.ready(1, 20)).rejects.toThrow(
      /did not get ready.*\n.*Booting Linux\nVFS: Cannot open root/s,
    );
  });

  it('and hangs in a script refuses the next until it answers', async () => {
    let late = '';
    guest((script) => {
      if (script !== 'sleep 1000') return { output: 'fine', status: 0 };
      late = '@vsmmu begin ID\n\n@vsmmu end ID 0\n';
      return undefined;
    });
    let id = '';
    pair.far.on('data', (line: string) => {
      id ||= line.split(' ')[0] ?? '';
    });
    expect(await code(shell.run('sleep 1000', 20))).toBe('TIMEOUT');
    expect(await code(shell.run('true'))).toBe('TIMEOUT');
    pair.far.write(late.replaceAll('ID', id));
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
    expect(await shell.run('true')).toEqual({ output: 'fine', status: 0 });
  });

  it('and prints without end is stopped reading', async () => {
    answerLines(pair.far, (line) => `@vsmmu begin ${line.split(' ')[0]}\n${'x'.repeat(300_000)}`);
    expect(await code(shell.run('yes', 5000, 100_000))).toBe('PROTOCOL');
  });

  it('and prints rubbish before the answer is understood all the same', async () => {
    guest(() => '\0\xff\n@vsmmu end 0000 7\n@vsmmu begin ID\nright\n@vsmmu end ID 0\n');
    expect(await shell.run('x')).toEqual({ output: 'right', status: 0 });
  });

  it("and prints another script's end does not end this one", async () => {
    guest(() => '@vsmmu begin ID\n@vsmmu end 1234 9\nmore\n@vsmmu end ID 3\n');
    expect(await shell.run('x')).toEqual({ output: '@vsmmu end 1234 9\nmore', status: 3 });
  });

  it('and ends fails whoever waits with the reason', async () => {
    const waiting = [shell.ready(), shell.run('true')].map(code);
    await Promise.resolve();
    shell.end(new QemuError('QEMU_EXITED', 'QEMU ended by SIGKILL'));
    expect(await Promise.all(waiting)).toEqual(['QEMU_EXITED', 'QEMU_EXITED']);
    expect(await code(shell.run('true'))).toBe('QEMU_EXITED');
  });

  it('and reboots in the middle of a script fails that script, then works again', async () => {
    guest((script) =>
      script === 'crash' ? '@vsmmu begin ID\nhalf a\n@vsmmu ready 1.5 6.12\n' : { output: '', status: 0 },
    );
    pair.far.write('@vsmmu ready 1.25 6.12\n');
    await shell.ready(1);
    expect(await code(shell.run('crash'))).toBe('CLOSED');
    expect(await shell.ready(2)).toEqual({ uptimeS: 1.5, kernel: '6.12' });
    expect((await shell.run('true')).status).toBe(0);
  });
});

describe('a guest that does', () => {
  it('says when it is ready and which kernel it has', async () => {
    pair.far.write('@vsmmu ready 2.12 7.3.4+deb13-cloud-arm64\r\n');
    expect(await shell.ready()).toEqual({ uptimeS: 2.12, kernel: '7.3.4+deb13-cloud-arm64' });
    expect(shell.boots).toBe(1);
  });

  it.each([
    ['', 0],
    ['one line', 0],
    ['with an end\n', 1],
    ['\n\nmany\n\n', 127],
    ['x'.repeat(200_000), 0],
    ['Grüße', 0],
  ])('gives output and status back as they were (%#)', async (output, status) => {
    guest(() => ({ output, status }));
    expect(await shell.run('anything')).toEqual({ output, status });
  });

  it('gets a script of several lines with every kind of quote', async () => {
    const seen: string[] = [];
    guest((script) => {
      seen.push(script);
      return { output: '', status: 0 };
    });
    const script = `echo "a" 'b' \`c\` $d\nfor i in 1 2; do\n\techo $i\ndone`;
    await shell.run(script);
    expect(seen).toEqual([script]);
  });

  it('runs one script after the other', async () => {
    let running = 0;
    answerLines(pair.far, (line) => {
      running++;
      const id = line.split(' ')[0];
      setTimeout(() => {
        pair.far.write(`@vsmmu begin ${id}\n${running--}\n@vsmmu end ${id} 0\n`);
      }, 5);
      return undefined;
    });
    const results = await Promise.all([shell.run('a'), shell.run('b'), shell.run('c')]);
    expect(results.map(({ output }) => output)).toEqual(['1', '1', '1']);
  });

  it('may send its answer a byte at a time', async () => {
    answerLines(pair.far, (line) => {
      const id = line.split(' ')[0];
      const bytes = Buffer.from(`@vsmmu begin ${id}\nä\n\n@vsmmu end ${id} 0\n`);
      for (const byte of bytes) pair.far.write(Buffer.from([byte]));
      return undefined;
    });
    expect((await shell.run('x')).output).toBe('ä\n');
  });

  it('is quoted when a script that has to succeed does not', async () => {
    guest(() => ({ output: 'dd: /dev/nvme0n1: No such file', status: 1 }));
    await expect(shell.check('dd')).rejects.toThrow(/status 1:\ndd: \/dev\/nvme0n1: No such file/);
  });
});

describe('the log', () => {
  it('finds a line that is there already and one that is still to come', async () => {
    log.append('[    0.1] arm-smmu-v3 3e000000.smmuv3: oas 48-bit (features 0x00008305)\r\n');
    expect(await log.waitFor(/oas 48-bit/)).toContain('features');
    const later = log.waitFor(/event: F_TRANSLATION/g, { from: log.position });
    log.append('event: F_TRANS');
    log.append('LATION client: 0000:01:00.0\n');
    expect(await later).toBe('event: F_TRANSLATION client: 0000:01:00.0');
  });

  it('does not find again what was printed before the position', async () => {
    log.append('first boot\n');
    expect(await code(log.waitFor(/first boot/, { from: log.position, timeoutMs: 10 }))).toBe('TIMEOUT');
  });

  it('tells those who wait when the kernel panics', async () => {
    const waiting = code(log.waitFor(/login:/));
    log.append('Kernel panic - not syncing: No working init found.\n');
    expect(await waiting).toBe('GUEST_PANIC');
  });

  it('keeps a bounded number of lines of bounded length', () => {
    log.append(`${'x'.repeat(1_000_000)}\n`);
    expect(log.lines()[0]).toHaveLength(4096);
    for (let i = 0; i < 60; i++) log.append('y\n'.repeat(1000));
    expect(log.lines().length).toBeLessThanOrEqual(20_000);
    expect(log.position).toBe(60_001);
    expect(log.lines(60_000)).toEqual(['y']);
  });

  it('keeps a bounded part of a line that never ends', () => {
    for (let i = 0; i < 100; i++) log.append('z'.repeat(10_000));
    expect(log.tail().length).toBeLessThanOrEqual(4096);
  });
});
