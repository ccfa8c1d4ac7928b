/** What all streams of a random world stand on. */

import type { Random } from '../random.ts';
import type { SlowIds } from '../slow-machine.ts';
import type { RandomMemory } from './random-memory.ts';
import type { RandomTables } from './random-tables.ts';

export interface Foundations {
  readonly random: Random;
  readonly ids: SlowIds;
  readonly memory: RandomMemory;
  readonly tables: RandomTables;
  /** CR2.E2H. */
  readonly e2h: boolean;
}
