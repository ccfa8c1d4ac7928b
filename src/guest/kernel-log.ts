/** What the driver would have put in the kernel's log. */

/** Lines that are kept at least; like the kernel's, the log forgets its oldest ones. */
const KEPT = 10_000;

function append(lines: string[], line: string): void {
  if (lines.length >= 2 * KEPT) lines.splice(0, KEPT);
  lines.push(line);
}

/** One guest kernel's log lines about one SMMU, without time stamps. */
export class KernelLog {
  /** The latest lines, in order, each as `dmesg` shows it. */
  readonly lines: string[] = [];
  /** What says that the device or its surroundings went wrong: Linux's warnings and errors, and our stricter ones. */
  readonly warnings: string[] = [];
  readonly #prefix: string;

  /** @param device the kernel's name of the SMMU, such as `3e000000.smmuv3`. */
  constructor(device: string) {
    this.#prefix = `arm-smmu-v3 ${device}: `;
  }

  /** Notes a line that is no cause for concern: start-up messages, and events, which are a device's fault. */
  info(text: string): void {
    append(this.lines, this.#prefix + text);
  }

  /** Notes a line that is. */
  warn(text: string): void {
    append(this.lines, this.#prefix + text);
    append(this.warnings, text);
  }

  /** Notes what Linux would not print, because it does not check it: only among the warnings. */
  suspect(text: string): void {
    append(this.warnings, text);
  }
}
