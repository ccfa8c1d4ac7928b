/** What can go wrong between us and a QEMU; the code is stable, the text is for people. */
export type QemuErrorCode =
  /** A device tree that is not one: bad magic, a size or offset outside the blob, unbalanced nodes. */
  | 'BAD_DEVICE_TREE'
  /** QEMU could not be started, is too old, or lacks a device that we need. */
  | 'QEMU_UNUSABLE'
  /** QEMU ended while it was still needed. */
  | 'QEMU_EXITED'
  /** A socket cannot be made or listened at. */
  | 'SOCKET'
  /** A peer (QMP, qtest, guest console) sent something that its protocol does not allow. */
  | 'PROTOCOL'
  /** QMP or qtest answered with an error. */
  | 'REFUSED'
  /** Something did not happen in time. */
  | 'TIMEOUT'
  /** The connection is closed. */
  | 'CLOSED'
  /** The guest kernel gave up. */
  | 'GUEST_PANIC';

/** An error of this room: `code` for programs, `message` and `hint` for people. */
export class QemuError extends Error {
  override readonly name = 'QemuError';
  readonly code: QemuErrorCode;
  /** What to do about it, if that is known. */
  readonly hint: string | undefined;

  constructor(code: QemuErrorCode, message: string, hint?: string) {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}
