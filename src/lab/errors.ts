/** Why a real guest cannot be had. */
export type LabErrorCode =
  /** This machine lacks something; the message says what to provide. The command line ends with exit code 3. */
  | 'UNSUPPORTED_HERE'
  /** Fetching or unpacking failed; trying again may help. */
  | 'LAB_FETCH_FAILED'
  /** Something that is built here could not be built. */
  | 'LAB_BUILD_FAILED';

export class LabError extends Error {
  override readonly name = 'LabError';
  readonly code: LabErrorCode;
  /** What to do about it. */
  readonly hint: string;

  constructor(code: LabErrorCode, message: string, hint: string) {
    super(`${message}\n${hint}`);
    this.code = code;
    this.hint = hint;
  }
}
