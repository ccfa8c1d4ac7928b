/** A record that a log spreads over several lines, while its lines are being collected. */

import { hiOf, loOf } from '../bits/u64.ts';
import { EVENT_RECORD, EVENT_WORDS, EVENTS } from '../spec/events.ts';
import { COMMAND_WORDS } from '../spec/commands.ts';
import { explainCommand } from './command.ts';
import type { DeviceKnowledge } from './device.ts';
import { explainEvent } from './event.ts';
import { type Explanation, uncapitalized } from './explanation.ts';
import type { LogLine } from './log-line.ts';
import type { Problem } from './words.ts';

const TYPE_OF = new Map<string, number>(EVENTS.map(({ name, type }) => [name, type]));

/** Words of the record that carry the access, InputAddr, and IPA or FetchAddr. */
const ACCESS_WORD = 3;

abstract class Draft {
  readonly start: LogLine;
  lastLine: number;
  readonly words: Uint32Array;
  /** Bit n: word n is known. */
  known = 0;
  /** Index of the next word that a raw line gives. */
  #next = 0;

  constructor(start: LogLine, words: number) {
    this.start = start;
    this.lastLine = start.line;
    this.words = new Uint32Array(words);
  }

  /** Raw lines are still expected. */
  get open(): boolean {
    return this.#next < this.words.length;
  }

  /** Takes the next 64-bit word; undefined if its line could not be read. */
  add(value: bigint | undefined, line: number): void {
    if (value !== undefined) this.set(this.#next, value);
    this.#next += 2;
    this.lastLine = line;
  }

  /** Sets a 64-bit word, by the index of its lower half. */
  protected set(at: number, value: bigint): void {
    this.words[at] = loOf(value);
    this.words[at + 1] = hiOf(value);
    this.known |= 3 << at;
  }

  /** No raw line follows any more. */
  close(): void {
    this.#next = this.words.length;
  }

  /** What is wrong with the record, as far as it is known. */
  abstract problems(): Problem[];
  abstract explain(knowledge: DeviceKnowledge): Explanation | undefined;

  protected incomplete(what: string): Problem[] {
    const total = this.words.length / 2;
    let given = 0;
    for (let at = 0; at < this.words.length; at += 2) if ((this.known & (3 << at)) !== 0) given += 1;
    if (given === total) return [];
    return [
      {
        line: this.start.line,
        column: this.start.column,
        message: `${what} has ${given} of its ${total} doublewords: lines are missing or damaged`,
      },
    ];
  }
}

/** "skipping command in error state:" and two raw lines. */
export class CommandDraft extends Draft {
  constructor(start: LogLine) {
    super(start, COMMAND_WORDS);
  }

  problems(): Problem[] {
    return this.incomplete('this command');
  }

  explain(): Explanation | undefined {
    if ((this.known & 3) !== 3) return undefined;
    const explained = explainCommand(this.words);
    return {
      ...explained,
      severity: 'error',
      summary: `Linux replaced a command by a CMD_SYNC, so this was not done: ${uncapitalized(explained.summary)}`,
    };
  }
}

/** "event 0x10 received:" and four raw lines, or the decoded lines of newer kernels, or both. */
export class EventDraft extends Draft {
  /** Event number that the first line gives. */
  readonly announced: number | undefined;
  readonly raw: boolean;
  client: string | undefined;
  unassigned = false;
  /** The line with client and addresses was seen; the line with the access was seen. */
  decoded = false;
  detailed = false;

  constructor(start: LogLine, announced: number | undefined) {
    super(start, EVENT_WORDS);
    this.announced = announced;
    this.raw = announced !== undefined;
    if (!this.raw) this.close();
  }

  get type(): number | undefined {
    return (this.known & 1) === 1 ? EVENT_RECORD.EventID.get(this.words) : this.announced;
  }

  /** StreamID, if known. */
  get sid(): number | undefined {
    return (this.known & 2) === 0 ? undefined : EVENT_RECORD.StreamID.get(this.words);
  }

  /** A decoded line can belong to this record. */
  matches(name: string, sid: number | undefined): boolean {
    const type = TYPE_OF.get(name);
    if (type !== undefined && this.type !== type) return false;
    return sid === undefined || this.sid === undefined || this.sid === sid;
  }

  /** Takes the values of a decoded line for words that the raw lines did not give. */
  fill(name: string, values: ReadonlyMap<string, bigint>): void {
    const type = TYPE_OF.get(name) ?? this.announced ?? 0;
    const sid = values.get('sid');
    if ((this.known & 3) !== 3 && sid !== undefined) {
      const ssid = values.get('ssid') ?? 0n;
      // The driver prints 0 also for a record without SubstreamID, which is the usual reading.
      const ssv = ssid === 0n ? 0n : 1n << 11n;
      this.set(0, BigInt(type) | ssv | ((ssid & 0xf_ffffn) << 12n) | (sid << 32n));
    }
    const iova = values.get('iova');
    if ((this.known & 0x30) !== 0x30 && iova !== undefined) this.set(4, iova);
    const second = values.get('ipa') ?? values.get('fetch_addr');
    if ((this.known & 0xc0) !== 0xc0 && second !== undefined) this.set(6, second);
  }

  /** Takes the access from a decoded line if the raw lines did not give it. */
  fillAccess(access: AccessLine): void {
    this.detailed = true;
    if ((this.known & (1 << ACCESS_WORD)) !== 0) return;
    const { words } = this;
    EVENT_RECORD.PnU.set(words, access.privileged ? 1 : 0);
    EVENT_RECORD.InD.set(words, access.instruction ? 1 : 0);
    EVENT_RECORD.RnW.set(words, access.read ? 1 : 0);
    EVENT_RECORD.S2.set(words, access.stage2 ? 1 : 0);
    EVENT_RECORD.CLASS.set(words, access.class);
    EVENT_RECORD.TTRnW.set(words, access.tableRead ? 1 : 0);
    EVENT_RECORD.Stall.set(words, access.stall ? 1 : 0);
    EVENT_RECORD.STAG.set(words, access.stag);
    this.known |= 3 << (ACCESS_WORD - 1);
  }

  problems(): Problem[] {
    const found = this.raw ? this.incomplete('this event') : [];
    if (this.announced !== undefined && this.type !== this.announced)
      found.push({
        line: this.start.line,
        column: this.start.column,
        message:
          `the first line says event 0x${this.announced.toString(16).padStart(2, '0')}, the record says ` +
          `0x${(this.type ?? 0).toString(16).padStart(2, '0')}: lines of several records are mixed`,
      });
    return found;
  }

  explain(knowledge: DeviceKnowledge): Explanation | undefined {
    if (this.known === 0) {
      if (this.announced === undefined) return undefined;
      EVENT_RECORD.EventID.set(this.words, this.announced);
      const spec = EVENTS.find(({ type }) => type === this.announced);
      return {
        kind: 'event',
        severity: 'error',
        name: spec?.name ?? 'UNKNOWN',
        summary: `The SMMU reported ${spec?.name ?? `event 0x${this.announced.toString(16)}`}; the log does not give the record.`,
        details: [],
        checks: [],
        fields: [],
      };
    }
    const client = this.client ?? (this.unassigned ? undefined : knowledge.client);
    return explainEvent(this.words, {
      functions: knowledge.functions ?? new Map(),
      known: this.known,
      ...(client === undefined ? {} : { client }),
      unassigned: this.unassigned,
    });
  }
}

/** The second decoded line of a translation fault. */
export interface AccessLine {
  readonly privileged: boolean;
  readonly instruction: boolean;
  readonly read: boolean;
  readonly stage2: boolean;
  readonly class: number;
  readonly tableRead: boolean;
  readonly stall: boolean;
  readonly stag: number;
}
