import { expect, it } from 'vitest';
import { HostMemory } from '../../../src/host/sim/host-memory.ts';
import { MEM_ABORT, MEM_OK } from '../../../src/memory/memory.ts';

it('all of a buffer of 2 GiB is reachable, and nothing behind it', () => {
  const size = 2 ** 31;
  const host = new HostMemory();
  const bytes = new Uint8Array(size);
  const address = host.pin(bytes);
  const last = address + size - 8;
  const at = (pa: number): [number, number] => [Math.floor(pa / 2 ** 32), pa % 2 ** 32];
  expect(host.memory.store64(...at(last), 0x1122_3344, 0x5566_7788)).toBe(MEM_OK);
  expect(bytes[size - 1]).toBe(0x11);
  expect(host.memory.load64(...at(last + 8))).toBe(MEM_ABORT);
});
