/** Something that this machine cannot do at all; the command line ends with exit code 3 and prints why. */

/** What is missing. */
export type Missing = 'linux' | 'known-cpu' | 'koffi';

export class UnsupportedHere extends Error {
  override readonly name = 'UnsupportedHere';
  /** The same for everything that cannot be done here. */
  readonly code = 'UNSUPPORTED_HERE';
  readonly missing: Missing;
  /** What would change it. */
  readonly hint: string;

  constructor(missing: Missing, message: string, hint: string, cause?: unknown) {
    super(`${message}. ${hint}`, cause === undefined ? {} : { cause });
    this.missing = missing;
    this.hint = hint;
  }
}
