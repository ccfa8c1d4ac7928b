import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { expect, it, vi } from 'vitest';
import { firstFault } from '../../docs/examples/first-fault.ts';
import { LinuxKernel } from '../../src/index.ts';
import { NO_SYSCALLS, onLinux, SYS } from '../support/syscalls.ts';

const folder = new URL('../../docs/', import.meta.url);
const page = readFileSync(new URL('embedding-the-host.md', folder), 'utf8');

it.each(readdirSync(new URL('examples/', folder)))(
  'docs/embedding-the-host.md shows docs/examples/%s',
  (name) => {
    const source = readFileSync(new URL(`examples/${name}`, folder), 'utf8');
    expect(page).toContain(`\`\`\`ts\n${source.replaceAll("'../../src/index.ts'", "'vsmmu'")}\`\`\``);
  },
);

it('shows the page’s program in about 30 lines', () => {
  const source = readFileSync(new URL('examples/first-fault.ts', folder), 'utf8');
  expect(source.split('\n').filter((line) => line !== '').length).toBeLessThanOrEqual(35);
});

it('the program faults on the embedded host', async () => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {});
  try {
    await import('../../docs/examples/embedded-host.ts');
    // IHI 0070 7.3: C_BAD_CD.
    expect(log.mock.calls).toEqual([[{ type: 0x0a, sid: 8 }]]);
  } finally {
    log.mockRestore();
  }
});

it.skipIf(NO_SYSCALLS !== '' || existsSync('/dev/iommu'))(
  onLinux('the same program says what a machine lacks [no /dev/iommu]'),
  async () => {
    const kernel = new LinuxKernel({ sys: SYS });
    const ran = firstFault(kernel, '/dev/vfio/devices/vfio0', new Uint8Array(1), () => {});
    await expect(ran).rejects.toMatchObject({ code: 'ENOENT', operation: 'open' });
    kernel.release();
    await expect(import('../../docs/examples/linux-host.ts')).rejects.toMatchObject({ code: 'ENOENT' });
  },
);
