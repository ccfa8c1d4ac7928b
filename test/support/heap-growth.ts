/** How much the heap grows by something that is done over and over. */

const collect = (globalThis as { gc?: () => void }).gc;

/** Growth over `turns`, after a tenth as many to warm up; the least of a few tries, as others share the heap. */
export function heapGrowth(turns: number, limit: number, turn: (i: number) => void): number {
  for (let i = 0; i < turns / 10; i++) turn(i);
  let least = Number.POSITIVE_INFINITY;
  for (let attempt = 0; attempt < 3 && least >= limit; attempt++) {
    collect?.();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < turns; i++) turn(i);
    collect?.();
    least = Math.min(least, process.memoryUsage().heapUsed - before);
  }
  return least;
}
