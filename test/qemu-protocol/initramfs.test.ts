import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { writeCpio } from '../../src/qemu/cpio.ts';
import { QemuError } from '../../src/qemu/errors.ts';
import { buildInitramfs } from '../../src/qemu/initramfs.ts';

const text = (bytes: Uint8Array): string => new TextDecoder('latin1').decode(bytes);
const HAS_CPIO = spawnSync('cpio', ['--version']).status === 0;

describe('an archive', () => {
  it.each([[''], ['/bin'], ['a\0b']])('has no entry named %j', (name) => {
    expect(() => writeCpio([{ name, kind: 'file', mode: 0o644 }])).toThrow(QemuError);
  });

  it('is laid out as the kernel documents the newc form', () => {
    const archive = text(writeCpio([{ name: 'abc', kind: 'file', mode: 0o640, data: 'hello' }]));
    // Magic, then thirteen numbers of eight hexadecimal digits.
    expect(archive.slice(0, 110)).toBe(
      '070701' +
        '00000001' + // inode
        '000081A0' + // a file, 0640
        '00000000' + // user
        '00000000' + // group
        '00000001' + // links
        '00000000' + // time
        '00000005' + // size
        '0000000000000000' + // on device
        '0000000000000000' + // is device
        '00000004' + // name with its NUL
        '00000000', // checksum
    );
    expect(archive.slice(110, 116)).toBe('abc\0\0\0'); // up to 116, a multiple of four
    expect(archive.slice(116, 124)).toBe('hello\0\0\0');
    expect(archive.slice(124, 130)).toBe('070701');
    expect(archive.slice(124 + 110, 124 + 121)).toBe('TRAILER!!!\0');
    expect(archive.length % 4).toBe(0);
  });

  it('writes a device with its numbers', () => {
    const archive = text(
      writeCpio([{ name: 'console', kind: 'character-device', mode: 0o600, device: { major: 5, minor: 1 } }]),
    );
    expect(archive.slice(14, 22)).toBe('00002180');
    expect(archive.slice(78, 94)).toBe('0000000500000001');
  });

  it('is the same for the same input', () => {
    const busybox = new Uint8Array([1, 2, 3]);
    expect(buildInitramfs(busybox)).toEqual(buildInitramfs(busybox));
  });
});

describe.skipIf(!HAS_CPIO)('cpio (needs cpio)', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'vsmmu-cpio-'));
  });
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  it('unpacks what we wrote', () => {
    const archive = writeCpio([
      { name: 'd', kind: 'directory', mode: 0o755 },
      { name: 'd/one', kind: 'file', mode: 0o755, data: new Uint8Array([0, 255, 10]) },
      { name: 'd/two', kind: 'symlink', mode: 0o777, data: 'one' },
      { name: 'd/empty', kind: 'file', mode: 0o600 },
    ]);
    execFileSync('cpio', ['-i', '--quiet'], { input: archive, cwd: folder });
    expect(readFileSync(join(folder, 'd/two'))).toEqual(Buffer.from([0, 255, 10]));
    expect(statSync(join(folder, 'd/one')).mode & 0o777).toBe(0o755);
    expect(statSync(join(folder, 'd/empty')).size).toBe(0);
  });

  it('finds init, busybox and the nodes that the kernel opens first', () => {
    const archive = buildInitramfs(new Uint8Array(5));
    const list = execFileSync('cpio', ['-tv', '--quiet'], { input: archive }).toString();
    expect(list).toMatch(/^-rwxr-xr-x .* init$/m);
    expect(list).toMatch(/^-rwxr-xr-x .* 5 .* bin\/busybox$/m);
    expect(list).toMatch(/^crw------- .* 5, +1 .* dev\/console$/m);
  });
});
