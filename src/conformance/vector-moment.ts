/** A moment inside a vector, to be looked at. */

import type { Smmu } from '../smmu/smmu.ts';
import { VectorMachine } from './vector-machine.ts';
import { parseVector, type Vector } from './vector.ts';

export interface VectorMoment {
  readonly vector: Vector;
  readonly smmu: Smmu;
  /** Number of the step that would be next. */
  readonly step: number;
  /** The DMA that this step is, if it is one. */
  readonly dma: { readonly sid: number; readonly write: boolean; readonly iova: string } | undefined;
}

/**
 * Plays a vector as far as one of its steps.
 * @param lines one vector in JSON each
 * @param id of the vector; may be left out if there is one only
 * @param step number of the step in front of which to stop, from 0; the last DMA if left out
 * @throws RangeError if there is no such vector or step. @throws SyntaxError if it is malformed.
 */
export function vectorMoment(lines: readonly string[], id?: string, step?: number): VectorMoment {
  const texts = lines.filter((line) => line.trim() !== '');
  if (id === undefined && texts.length !== 1)
    throw new RangeError(`There are ${texts.length} vectors: name the one that is meant by its id.`);
  // An id is found before the rest is parsed: a file may have thousands.
  const text = id === undefined ? texts[0] : texts.find((line) => line.includes(`"${id}"`));
  if (text === undefined) throw new RangeError(`There is no vector ${id}.`);
  const vector = parseVector(text);
  const last = vector.steps.findLastIndex(([action]) => action === 'dma');
  const at = step ?? (last < 0 ? vector.steps.length : last);
  if (!Number.isInteger(at) || at < 0 || at > vector.steps.length)
    throw new RangeError(`Vector ${vector.id} has ${vector.steps.length} steps, from 0; there is no ${at}.`);
  const machine = new VectorMachine();
  machine.prepare(vector);
  for (const before of vector.steps.slice(0, at)) machine.step(before, vector);
  const next = at < vector.steps.length ? vector.steps[at] : undefined;
  const dma = next?.[0] === 'dma' ? { sid: next[1], write: next[2] === 'w', iova: next[3] } : undefined;
  return { vector, smmu: machine.smmu, step: at, dma };
}
