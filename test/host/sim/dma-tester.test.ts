import { describe, expect, it } from 'vitest';
import {
  BUFFER_SIZE,
  DMA_TESTER,
  DmaTester,
  OPERATION,
  PATTERN,
  RESULT,
} from '../../../src/host/sim/functions/dma-tester.ts';
import type { PciBus } from '../../../src/host/sim/pci-function.ts';
import { Memory } from '../../../src/memory/memory.ts';
import { OUTCOME, type Outcome } from '../../../src/smmu/transaction.ts';

const CONFIG = 7;

/** A tester on a bus that is memory without translation. */
function tester() {
  const ram = new Uint8Array(0x4000);
  const memory = new Memory();
  memory.addRam(0, 0x1000, ram);
  const function_ = new DmaTester(memory);
  const vectors: string[] = [];
  const status = (failed: number): Outcome => (failed === 0 ? OUTCOME.Ok : OUTCOME.Abort);
  const bus: PciBus = {
    read: (hi, lo, into) => status(memory.readBytes(hi, lo, into)),
    write: (hi, lo, from) => status(memory.writeBytes(hi, lo, from)),
    interrupt: (index, vector) => void vectors.push(`${index} ${vector}`),
  };
  function_.connect(bus);
  const write = (offset: number, value: number): void => {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    function_.regionWrite(0, offset, bytes);
  };
  const read = (offset: number): number => {
    const bytes = new Uint8Array(4);
    function_.regionRead(0, offset, bytes);
    return new DataView(bytes.buffer).getUint32(0, true);
  };
  const start = (values: Partial<Record<keyof typeof DMA_TESTER, number>>): number => {
    const all = { IovaLo: 0x1000, IovaHi: 0, Length: 4, Attributes: 0xa, Doorbell: 1, ...values };
    for (const [name, value] of Object.entries(all))
      write(DMA_TESTER[name as keyof typeof DMA_TESTER], value);
    read(DMA_TESTER.Trigger);
    return read(DMA_TESTER.Result);
  };
  const enable = (): void => function_.regionWrite(CONFIG, 4, Uint8Array.of(6, 0));
  return { function_, ram, vectors, write, read, start, enable };
}

describe('the DMA tester', () => {
  it.each([
    ['that is not armed', { Doorbell: 0 }, RESULT.NotArmed],
    ['of no length', { Length: 0 }, RESULT.BadLength],
    ['longer than its buffer', { Length: BUFFER_SIZE + 1 }, RESULT.BadLength],
    ['without valid attributes', { Attributes: 0 }, RESULT.BadAttributes],
    ['to where nothing is', { IovaLo: 0x8000 }, RESULT.TransferFailed],
    ['that is compared where nothing is', { PhysicalHi: 1 }, RESULT.ReadBackFailed],
    ['that is compared elsewhere', { PhysicalLo: 0x2000 }, RESULT.Mismatch],
    ['that is compared where it went', { PhysicalLo: 0x1000 }, RESULT.Ok],
    ['that is not compared', {}, RESULT.Ok],
  ])('ends a transfer %s as it should', (_, values, result) => {
    const { start, enable } = tester();
    enable();
    expect(start(values)).toBe(result);
  });

  it('does nothing before it is a bus master', () => {
    const { start, ram } = tester();
    expect(start({})).toBe(RESULT.TransferFailed);
    expect(ram[0]).toBe(0);
  });

  it('writes its pattern, and moves its buffer both ways', () => {
    const { start, enable, ram, read, write } = tester();
    enable();
    start({ Length: 6 });
    expect([...ram.subarray(0, 7)]).toEqual([0x78, 0x56, 0x34, 0x12, 0x78, 0x56, 0]);
    expect(start({ Length: 8, Operation: OPERATION.Read })).toBe(RESULT.Ok);
    expect(read(DMA_TESTER.Buffer)).toBe(PATTERN);
    write(DMA_TESTER.Buffer + 4, 0xdead_beef);
    expect(start({ IovaLo: 0x1100, Length: 8, Operation: OPERATION.Write })).toBe(RESULT.Ok);
    expect([...ram.subarray(0x104, 0x108)]).toEqual([0xef, 0xbe, 0xad, 0xde]);
  });

  it('is armed for one transfer, and signals its end if asked to', () => {
    const { start, enable, read, vectors } = tester();
    enable();
    expect(start({ Interrupt: 3 })).toBe(RESULT.Ok);
    expect(vectors).toEqual(['msi 2']);
    read(DMA_TESTER.Trigger);
    expect(read(DMA_TESTER.Result)).toBe(RESULT.NotArmed);
    expect(vectors).toHaveLength(1);
  });

  it('forgets everything at a reset', () => {
    const { function_, start, enable, read } = tester();
    enable();
    start({ Operation: OPERATION.Read });
    function_.reset();
    expect(read(DMA_TESTER.Result)).toBe(RESULT.Idle);
    expect(read(DMA_TESTER.Length)).toBe(0);
    expect(start({})).toBe(RESULT.TransferFailed);
  });

  it('has nothing in regions that it does not have', () => {
    const { function_ } = tester();
    const bytes = Uint8Array.of(1, 2, 3, 4);
    function_.regionRead(3, 0, bytes);
    expect(bytes).toEqual(new Uint8Array(4));
    function_.regionWrite(3, 0, Uint8Array.of(1));
  });
});
