import { describe, expect, it } from 'vitest';
import { type Action, World } from '../../src/explore/world.ts';

/** Two devices that translate by CDs of their own; the second one's CD is cached, and another one in memory. */
function world(): World {
  const made = new World([
    { name: 'nic0', at: '00:01.0' },
    { name: 'nic1', at: '00:02.0' },
  ]);
  const steps: Action[] = [
    { action: 'setup', args: {} },
    { action: 'ste', args: { device: 'nic0', is: 'translate', space: 0 } },
    { action: 'ste', args: { device: 'nic1', is: 'translate', space: 1 } },
    { action: 'page', args: { space: 1 } },
    { action: 'plug', args: { device: 'nic0' } },
    { action: 'plug', args: { device: 'nic1' } },
    { action: 'cr0', args: { smmuen: true } },
  ];
  for (const step of steps) made.perform(step);
  expect(made.read(1)).toBe('abort');
  made.perform({ action: 'cd', args: { space: 1, root: 2 } });
  expect(made.read(1)).toBe('abort');
  return made;
}

describe('CDs go with their STE (4.3.1), also if the STE is the same', () => {
  it.each([
    ['CFGI_STE', { device: 'nic1' }],
    ['CFGI_STE_RANGE', { device: 'nic0', log2: 5 }],
    ['CFGI_ALL', {}],
  ])('%s', (_, args) => {
    const made = world();
    made.perform({ action: 'cfgi', args });
    // 4.7.3: complete at the CMD_SYNC, with all else that is.
    made.kernel.ioctls.length = 0;
    made.perform({ action: 'sync', args: {} });
    expect(made.read(1)).toBe(2);
    expect(made.kernel.ioctls).toEqual(['IOMMU_HWPT_INVALIDATE']);
    // Said again, it costs nothing: nothing has changed.
    made.perform({ action: 'cfgi', args });
    made.perform({ action: 'sync', args: {} });
    expect(made.kernel.ioctls).toEqual([]);
  });

  it('also one that changed back after a CFGI_CD', () => {
    const made = world();
    made.perform({ action: 'cfgi-cd', args: { device: 'nic1' } });
    made.perform({ action: 'sync', args: {} });
    // The host has the second CD now.
    expect(made.read(1)).toBe(2);
    made.perform({ action: 'cd', args: { space: 1, root: 1 } });
    made.perform({ action: 'tlbi', args: {} });
    made.perform({ action: 'sync', args: {} });
    expect(made.read(1)).toBe(2);
    made.perform({ action: 'cfgi', args: { device: 'nic1' } });
    made.perform({ action: 'tlbi', args: {} });
    made.perform({ action: 'sync', args: {} });
    expect(made.read(1)).toBe('abort');
  });

  it('those of other StreamIDs stay', () => {
    const made = world();
    made.perform({ action: 'cfgi', args: { device: 'nic0' } });
    made.perform({ action: 'sync', args: {} });
    expect(made.read(1)).toBe('abort');
  });

  it('if the host refuses, everything is invalidated instead', () => {
    const made = world();
    made.perform({ action: 'fail', args: { ioctl: 'IOMMU_HWPT_INVALIDATE', errno: 'EIO', nth: 1 } });
    made.perform({ action: 'cfgi', args: { device: 'nic1' } });
    made.perform({ action: 'sync', args: {} });
    expect(made.read(1)).toBe(2);
  });

  it('an STE that is another one costs no invalidation: its installation drops them', () => {
    const made = world();
    made.perform({ action: 'ste', args: { device: 'nic1', is: 'translate', space: 2 } });
    made.perform({ action: 'cfgi', args: { device: 'nic1' } });
    expect(made.read(1)).toBe(2);
    expect(made.kernel.ioctls).not.toContain('IOMMU_HWPT_INVALIDATE');
  });
});
