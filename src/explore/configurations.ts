/** The machines that are explored, each for one subject. */

import type { Configuration } from './configuration.ts';
import { AGAIN, FAILURES, RACE } from './configurations/failures.ts';
import { CACHES, COMMANDS, CONTEXTS } from './configurations/invalidation.ts';
import { BUSES, DRIVER, PAIR, QUEUE, STORM, STREAMS } from './configurations/orders.ts';

/** In the order in which they are explored: what few events show comes first. */
export const CONFIGURATIONS: readonly Configuration[] = [
  QUEUE,
  STREAMS,
  PAIR,
  FAILURES,
  CACHES,
  CONTEXTS,
  COMMANDS,
  BUSES,
  RACE,
  STORM,
  AGAIN,
  DRIVER,
];
