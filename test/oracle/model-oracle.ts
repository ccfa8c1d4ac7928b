import { VectorMachine } from '../../src/conformance/vector-machine.ts';
import {
  type CaseResult,
  EVENT_BYTES,
  FINAL_REGISTERS,
  type OracleCase,
  RAM_END,
  RAM_FIRST,
  asVector,
} from './oracle-case.ts';

export interface ModelResult extends CaseResult {
  /** By step: whether the Event queue could take a record before it (7.2.1). */
  readonly writable: boolean[];
  /** The first step at which EVENTQ_PROD.OVFLG toggled. */
  overflow: number | undefined;
  /** Drains do not give the records of the accesses in their order. */
  unordered?: true;
}

/** Runs cases on the model. */
export class ModelOracle {
  readonly #machine = new VectorMachine();

  run(given: OracleCase): ModelResult {
    const vector = asVector(given);
    const machine = this.#machine;
    machine.prepare(vector);
    const result: ModelResult = { out: [], final: {}, writable: [], overflow: undefined };
    for (const [i, step] of given.steps.entries()) {
      result.writable.push(this.#queueIsWritable(given));
      const before = this.#overflowFlag();
      result.out.push(machine.step(step, vector));
      if (step[0] === 'dma' && this.#overflowFlag() !== before) result.overflow ??= i;
    }
    for (const [name, offset] of Object.entries(FINAL_REGISTERS)) result.final[name] = machine.read(offset);
    return result;
  }

  #overflowFlag(): boolean {
    return Number(this.#machine.read(FINAL_REGISTERS.EVENTQ_PROD)) >= 0x8000_0000;
  }

  #queueIsWritable({ eventq }: OracleCase): boolean {
    const value = (name: keyof typeof FINAL_REGISTERS): number =>
      Number(this.#machine.read(FINAL_REGISTERS[name]));
    const size = 2 ** eventq.log2;
    const full = ((value('EVENTQ_PROD') ^ value('EVENTQ_CONS')) & (2 * size - 1)) === size;
    const error = ((value('GERROR') ^ value('GERRORN')) & 4) !== 0;
    const base = Number(eventq.base);
    const inRam = base >= RAM_FIRST && base + size * EVENT_BYTES <= RAM_END;
    return (value('CR0') & 4) !== 0 && !full && !error && inRam;
  }
}
