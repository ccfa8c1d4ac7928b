/** Work that is put off until the caller has finished: how "later" happens in one thread, in a fixed order. */

export type Task = () => void;

/** A first-in, first-out queue of tasks. Nothing runs by itself: the owner calls {@link Scheduler.run}. */
export class Scheduler {
  #tasks: Task[] = [];

  /** Puts a task behind all that wait. Passable as it is: `schedule: scheduler.post`. */
  readonly post = (task: Task): void => {
    this.#tasks.push(task);
  };

  get idle(): boolean {
    return this.#tasks.length === 0;
  }

  /**
   * Runs tasks, and those that they post, until none waits or `limit` have run.
   * @returns true if nothing waits any more.
   */
  run(limit = 1_000_000): boolean {
    let ran = 0;
    while (this.#tasks.length > 0 && ran < limit) {
      const batch = this.#tasks;
      this.#tasks = [];
      for (let i = 0; i < batch.length; i++) {
        if (ran === limit) {
          this.#tasks = [...batch.slice(i), ...this.#tasks];
          break;
        }
        ran += 1;
        batch[i]();
      }
    }
    return this.idle;
  }
}
