/** One line of a kernel log: what was put in front of the message, by whom ever. */

export interface LogLine {
  /** Counts from 1, as does the column. */
  readonly line: number;
  /** Column of the message. */
  readonly column: number;
  /** As the log gives it: seconds since boot, or a date. */
  readonly time: string | undefined;
  /** The SMMU's device name, if the line is the SMMUv3 driver's. */
  readonly smmu: string | undefined;
  /** Who printed it, if the kernel says so (CONFIG_PRINTK_CALLER): 'T12', 'C1'. */
  readonly caller: string | undefined;
  /** Without prefix and line end; a leading tab is kept. */
  readonly message: string;
}

/** Colours and other control sequences of terminals, and what serial consoles leave over. */
// eslint-disable-next-line no-control-regex
const TERMINAL = /\u001b\[[0-9;?]*[A-Za-z]|\r/g;

/** Prefixes of logs, to be taken off one after the other. */
const PREFIXES: readonly RegExp[] = [
  // /dev/kmsg: priority, sequence, microseconds, flags.
  /^\d+,\d+,\d+,[^;]{0,40};/,
  // Priority of `dmesg -r`.
  /^<\d{1,3}>/,
  // Facility and level of `dmesg -x`.
  /^[a-z]+\s*:[a-z]+\s*:\s/,
  // journalctl, syslog: date, host, "kernel:".
  /^\d{4}-\d\d-\d\d[T ]\S+ (?:\S+ )?kernel: ?/,
  /^[A-Z][a-z]{2} [ \d]\d (?:\d{4} )?\d\d:\d\d:\d\d\S* (?:\S+ )?kernel: ?/,
  // Seconds, dates and callers in brackets, and the host of `journalctl -o short-monotonic`.
  /^\[[^\]]{1,40}\] ?(?:\S+ kernel: ?)?/,
];

const DRIVER = /\barm-smmu-v3 (\S+): ?/;

function timeOf(prefix: string): string | undefined {
  const seconds = /\[\s*(\+?\d+\.\d+)\]/.exec(prefix);
  if (seconds !== null) return seconds[1];
  const microseconds = /^\d+,\d+,(\d+),/.exec(prefix);
  if (microseconds !== null) return (Number(microseconds[1]) / 1e6).toFixed(6);
  const date =
    /\d{4}-\d\d-\d\d[T ]\S+/.exec(prefix) ??
    /(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?(?: \d{4})?/.exec(prefix);
  return date?.[0];
}

/** Length of the prefixes in front of a message that does not name the driver. */
function prefixLength(text: string): number {
  let at = 0;
  for (let found = true; found;) {
    found = false;
    for (const pattern of PREFIXES) {
      const match = pattern.exec(text.slice(at, at + 200));
      if (match === null) continue;
      at += match[0].length;
      found = true;
    }
  }
  return at;
}

/** Takes a line of a log apart. @param line its number */
export function readLine(raw: string, line: number): LogLine {
  // rsyslog writes a tab as #011.
  const text = raw.replace(TERMINAL, '').replaceAll('#011', '\t');
  const driver = DRIVER.exec(text.slice(0, 400));
  const at = driver === null ? prefixLength(text) : driver.index + driver[0].length;
  const prefix = text.slice(0, driver === null ? at : driver.index);
  return {
    line,
    column: at + 1,
    time: timeOf(prefix),
    smmu: driver?.[1],
    caller: /\[\s*([TC]\d+)\]/.exec(prefix)?.[1] ?? /caller=([TC]\d+)/.exec(prefix)?.[1],
    message: text.slice(at).trimEnd(),
  };
}
