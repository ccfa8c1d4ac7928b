/** Exit codes, the same for every command, so that scripts can tell "it failed" from "it cannot be done here". */
export const EXIT = { Fine: 0, Failed: 1, Usage: 2, NotPossibleHere: 3 } as const;

/** What the user asked for makes no sense as asked; the message says what would. */
export class UsageError extends Error {
  readonly code = 'USAGE';

  constructor(message: string) {
    super(message);
    this.name = 'UsageError';
  }
}
