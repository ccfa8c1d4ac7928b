import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { findQemu } from './find-qemu.ts';
import type { QemuOracle } from './qemu-oracle.ts';
import { recordedCases } from './recorded.ts';

let qemu: QemuOracle;
beforeAll(async () => {
  qemu = await findQemu();
});
afterAll(async () => {
  await qemu?.close();
});

describe('the driver of QEMU', () => {
  it('gets what was recorded, for every recorded vector', async () => {
    const wrong: string[] = [];
    const cases = recordedCases();
    for (const { given, result } of cases) {
      const live = await qemu.run(given);
      const same =
        result.crashed === undefined
          ? JSON.stringify([live.out, live.final]) === JSON.stringify([result.out, result.final])
          : live.crashed !== undefined;
      if (!same) wrong.push(given.id);
    }
    expect(wrong).toEqual([]);
    expect(cases.length).toBe(1496);
  });

  it('refuses an access that no endpoint can make', async () => {
    const [{ given }] = recordedCases();
    const steps = [['dma', 9, 'r', '0x0']] as const;
    await expect(qemu.run({ ...given, steps })).rejects.toThrow(/no endpoint/);
  });
});
