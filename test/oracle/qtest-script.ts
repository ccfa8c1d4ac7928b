import type { Qtest } from '../../src/qemu/qtest.ts';

/** Commands that are sent at once; QEMU's answers must not pile up. */
const BATCH = 200;

type OnAnswer = (words: readonly string[]) => void;

/** qtest commands that go out together. */
export class Script {
  readonly #qtest: Qtest;
  #lines: string[] = [];
  #listeners: (OnAnswer | undefined)[] = [];

  constructor(qtest: Qtest) {
    this.#qtest = qtest;
  }

  add(line: string, onAnswer?: OnAnswer): void {
    this.#lines.push(line);
    this.#listeners.push(onAnswer);
  }

  addAll(lines: readonly string[], onLastAnswer?: OnAnswer): void {
    for (const [i, line] of lines.entries())
      this.add(line, i === lines.length - 1 ? onLastAnswer : undefined);
  }

  /** Sends what is there; all answers have been given to their listeners afterwards. */
  async run(): Promise<void> {
    const [lines, listeners] = [this.#lines, this.#listeners];
    this.#lines = [];
    this.#listeners = [];
    for (let from = 0; from < lines.length; from += BATCH) {
      const answers = await this.#qtest.commands(lines.slice(from, from + BATCH));
      for (const [i, words] of answers.entries()) listeners[from + i]?.(words);
    }
  }
}
