/** Something that this machine cannot do at all; the command line ends with exit code 3 and prints the hint. */

/** Stable codes of {@link UnsupportedHere}. */
export type UnsupportedCode = 'NOT_LINUX' | 'UNKNOWN_CPU' | 'NO_KOFFI';

export class UnsupportedHere extends Error {
  override readonly name = 'UnsupportedHere';
  readonly code: UnsupportedCode;
  /** What would change it. */
  readonly hint: string;

  constructor(code: UnsupportedCode, message: string, hint: string, cause?: unknown) {
    super(`${message}. ${hint}`, cause === undefined ? {} : { cause });
    this.code = code;
    this.hint = hint;
  }
}
