import { describe, expect, it } from 'vitest';

import type { Played } from './inside/gaps.ts';
import { bootLab } from './lab.ts';

/** Two behind one SMMU, a third behind the other. */
const DEVICES = ['0000:00:04.0', '0000:00:05.0', '0000:21:00.0'];

async function play(): Promise<{ played: Played[]; complaints: string }> {
  const lab = await bootLab();
  try {
    for (const address of DEVICES) await lab.bindToVfio(address);
    const program = `node /lab/vsmmu/test/lab/inside/gaps.js ${DEVICES.join(' ')}`;
    const output = await lab.check(program, 150_000);
    return {
      played: output
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Played),
      complaints: await lab.check('dmesg | grep -E "WARNING|BUG|Call trace|refcount|leak" || true'),
    };
  } finally {
    await lab.close();
  }
}

const { played, complaints } = await play();

describe('gaps of QEMU that Linux itself shows to be closed', () => {
  it.each(played.map(({ name, failure }) => [name, failure] as const))('%s', (_, failure) => {
    expect(failure).toBeUndefined();
  });

  it('are all that docs/qemu-gaps.md names', () => {
    expect(played.length).toBeGreaterThan(25);
  });

  it('leave the kernel without complaint', () => {
    expect(complaints).toBe('');
  });
});
