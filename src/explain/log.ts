/** Kernel logs: finds what the SMMUv3 driver said, and puts records together again. */

import { EVENT_CLASS } from '../spec/events.ts';
import { PRI_ENTRY, PRI_ENTRY_WORDS } from '../spec/queues.ts';
import type { DeviceKnowledge } from './device.ts';
import type { Explanation } from './explanation.ts';
import type { LogLine } from './log-line.ts';
import { explainMessage, otherMessage } from './log-messages.ts';
import { explainPageRequest } from './page-request.ts';
import { type AccessLine, CommandDraft, EventDraft } from './record-draft.ts';
import type { Problem } from './words.ts';

const HEADER = /^event (0x[0-9a-f]{1,8}) received:?/i;
const RAW = /^\s*(0x[0-9a-z?]*)\s*$/i;
const DECODED = /^event: (\w+) client: /;
const ACCESS =
  /^(priv|unpriv) (inst|data) (read|write) s([12]) "([^"]{1,60})"( ttd_read| ttd_write)?( stall)? stag: (0x[0-9a-f]{1,8})/;
const ACCESS_START = /^(?:un)?priv (?:inst|data) /;
const SKIPPED = /^skipping command in error state/;
const PRI_START = /^unexpected PRI request received/;
const PRI =
  /^\s*sid (0x[0-9a-f]{1,8})\.(0x[0-9a-f]{1,5}): \[(\d{1,4})(L?)\] (un)?privileged (R?)(W?)(X?) access at iova (0x[0-9a-f]{1,16})/;
const RAW_DIGITS = 16;

/** The values that end the decoded line of an event. */
const LINE_ENDS: ReadonlyMap<string, readonly string[]> = new Map([
  ['F_TRANSLATION', ['ssid', 'iova', 'ipa']],
  ['F_ADDR_SIZE', ['ssid', 'iova', 'ipa']],
  ['F_ACCESS', ['ssid', 'iova', 'ipa']],
  ['F_PERMISSION', ['ssid', 'iova', 'ipa']],
  ['F_STE_FETCH', ['ssid', 'fetch_addr']],
  ['F_CD_FETCH', ['ssid', 'fetch_addr']],
  ['F_VMS_FETCH', ['ssid', 'fetch_addr']],
]);

const CLASSES: Readonly<Record<string, number>> = {
  'CD fetch': EVENT_CLASS.CD,
  'Stage 1 translation table fetch': EVENT_CLASS.TT,
  'Input address caused fault': EVENT_CLASS.IN,
};

/** "nvme 0000:00:01.0: ...": a PCI function and its driver. */
const FUNCTION = /(?:^|\s)([a-z][\w-]{1,30}) ([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): /;
/** Names in that place that are no driver of the function. */
const NOT_DRIVERS: ReadonlySet<string> = new Set(['pci', 'pci_bus', 'client', 'iommu']);

/** Something that the log tells, in the order of its first line. */
export interface Finding {
  readonly line: number;
  readonly column: number;
  readonly lastLine: number;
  readonly time: string | undefined;
  readonly smmu: string | undefined;
  readonly explanation: Explanation;
}

interface Entry {
  readonly start: LogLine;
  readonly draft: EventDraft | CommandDraft | undefined;
  readonly explanation: Explanation | undefined;
}

/** Collects lines; {@link finish} gives what they say. */
export class LogReader {
  readonly problems: Problem[] = [];
  readonly #entries: Entry[] = [];
  /** Drafts by SMMU, newest last; only the last few of each matter. */
  readonly #drafts = new Map<string, (EventDraft | CommandDraft)[]>();
  readonly #functions = new Map<string, string>();

  /** @returns false if the line is nothing that this room knows */
  take(line: LogLine): boolean {
    this.#noteFunction(line.message);
    const { message } = line;
    const header = HEADER.exec(message);
    if (header !== null) this.#start(line, new EventDraft(line, Number.parseInt(header[1], 16) & 0xff));
    else if (SKIPPED.test(message)) this.#start(line, new CommandDraft(line));
    else if (DECODED.test(message)) this.#decoded(line);
    else if (ACCESS_START.test(message)) this.#access(line);
    else if (PRI.test(message)) this.#pageRequest(line);
    else if (PRI_START.test(message)) return true;
    else if (RAW.test(message) && (line.smmu !== undefined || this.#openDraft(line) !== undefined))
      this.#raw(line);
    else return this.#other(line);
    return true;
  }

  /** A record of an SMMU without a name waits for a raw line such as this one. */
  expects(line: LogLine): boolean {
    return RAW.test(line.message) && this.#openDraft(line) !== undefined;
  }

  #other(line: LogLine): boolean {
    const fromDriver = line.smmu !== undefined;
    const explanation = explainMessage(line.message, fromDriver);
    if (explanation === undefined && !fromDriver) return false;
    if (/^event\b/.test(line.message))
      this.#problem(line, 'this looks like the start of an event, but it cannot be read');
    this.#entries.push({
      start: line,
      draft: undefined,
      explanation: explanation ?? otherMessage(line.message),
    });
    return true;
  }

  #problem(line: LogLine, message: string, offset = 0): void {
    this.problems.push({ line: line.line, column: line.column + offset, message });
  }

  #noteFunction(message: string): void {
    const match = FUNCTION.exec(message.slice(0, 200));
    if (match !== null && !NOT_DRIVERS.has(match[1]))
      this.#functions.set(match[2], `${match[1]} ${match[2]}`);
  }

  #draftsOf(line: LogLine): (EventDraft | CommandDraft)[] {
    const key = line.smmu ?? '';
    let drafts = this.#drafts.get(key);
    if (drafts === undefined) this.#drafts.set(key, (drafts = []));
    return drafts;
  }

  #start(line: LogLine, draft: EventDraft | CommandDraft): void {
    const drafts = this.#draftsOf(line);
    // One thread prints the events of an SMMU, one interrupt handler the commands: only these two interleave.
    for (const older of drafts) if (older.constructor === draft.constructor) older.close();
    drafts.push(draft);
    // What is so far back that two processors cannot be printing it any more.
    if (drafts.length > 8) drafts.shift();
    this.#entries.push({ start: line, draft, explanation: undefined });
  }

  /** Newest draft first; those of the same caller come before all others. */
  #find<T extends EventDraft | CommandDraft>(
    line: LogLine,
    fits: (draft: EventDraft | CommandDraft) => draft is T,
  ): T | undefined {
    const drafts = this.#draftsOf(line).toReversed();
    const same = drafts.filter((draft) => draft.start.caller === line.caller);
    return same.find(fits) ?? drafts.find(fits);
  }

  #openDraft(line: LogLine): EventDraft | CommandDraft | undefined {
    return this.#find(line, (draft): draft is EventDraft | CommandDraft => draft.open);
  }

  #raw(line: LogLine): void {
    const text = RAW.exec(line.message)![1];
    const indent = line.message.indexOf(text);
    const draft = this.#openDraft(line);
    if (draft === undefined) {
      this.#problem(line, `${text} belongs to no record: the line that announces it is missing`, indent);
      return;
    }
    const digits = text.slice(2);
    const bad = digits.search(/[^0-9a-f]/i);
    if (bad >= 0) this.#problem(line, `'${digits[bad]}' is not a hexadecimal digit`, indent + 2 + bad);
    else if (digits.length !== RAW_DIGITS)
      this.#problem(
        line,
        `${text} has ${digits.length} digits where ${RAW_DIGITS} belong: the line is cut off`,
        indent,
      );
    draft.add(bad < 0 && digits.length === RAW_DIGITS ? BigInt(text) : undefined, line.line);
  }

  #decoded(line: LogLine): void {
    const name = DECODED.exec(line.message)![1];
    const values = new Map<string, bigint>();
    for (const match of line.message.matchAll(
      / (sid|ssid|iova|ipa|fetch_addr): (0x[0-9a-f]{1,16})(?![0-9a-z])/g,
    ))
      values.set(match[1], BigInt(match[2]));
    const client = / client: (.{1,80}?)(?= sid:|$)/.exec(line.message)?.[1];
    const sid = values.get('sid');
    if (
      sid === undefined ||
      sid >= 1n << 32n ||
      (LINE_ENDS.get(name) ?? ['ssid']).some((key) => !values.has(key))
    )
      this.#problem(line, 'this line is cut off or damaged: sid, ssid or an address is missing');
    let draft = this.#find(
      line,
      (found): found is EventDraft =>
        found instanceof EventDraft &&
        !found.decoded &&
        found.matches(name, sid === undefined ? undefined : Number(BigInt.asUintN(32, sid))),
    );
    if (draft === undefined) {
      draft = new EventDraft(line, undefined);
      this.#start(line, draft);
    }
    draft.close();
    draft.decoded = true;
    draft.lastLine = line.line;
    if (client === '(unassigned sid)') draft.unassigned = true;
    else draft.client = client;
    if (sid !== undefined && sid < 1n << 32n) draft.fill(name, values);
  }

  #access(line: LogLine): void {
    const match = ACCESS.exec(line.message);
    const draft = this.#find(
      line,
      (found): found is EventDraft => found instanceof EventDraft && found.decoded && !found.detailed,
    );
    if (match === null) this.#problem(line, 'this line is cut off or damaged: it should end with a stag');
    else if (draft === undefined)
      this.#problem(line, 'the event that this line describes is missing before it');
    if (match === null || draft === undefined) return;
    const [, privilege, kind, direction, stage, text, walk, stall, stag] = match;
    const access: AccessLine = {
      privileged: privilege === 'priv',
      instruction: kind === 'inst',
      read: direction === 'read',
      stage2: stage === '2',
      class: CLASSES[text] ?? 3,
      tableRead: walk === ' ttd_read',
      stall: stall !== undefined,
      stag: Number.parseInt(stag, 16) & 0xffff,
    };
    draft.fillAccess(access);
    draft.lastLine = line.line;
  }

  #pageRequest(line: LogLine): void {
    const [, sid, ssid, group, last, unprivileged, read, write, execute, iova] = PRI.exec(line.message)!;
    const words = new Uint32Array(PRI_ENTRY_WORDS);
    const substream = Number.parseInt(ssid, 16);
    PRI_ENTRY.StreamID.set(words, Number.parseInt(sid, 16));
    PRI_ENTRY.SubstreamID.set(words, substream);
    PRI_ENTRY.SSV.set(words, substream === 0 ? 0 : 1);
    PRI_ENTRY.PRGIndex.set(words, Number(group));
    PRI_ENTRY.Last.set(words, last === '' ? 0 : 1);
    PRI_ENTRY.Priv.set(words, unprivileged === undefined ? 1 : 0);
    PRI_ENTRY.R.set(words, read === '' ? 0 : 1);
    PRI_ENTRY.W.set(words, write === '' ? 0 : 1);
    PRI_ENTRY.X.set(words, execute === '' ? 0 : 1);
    const address = BigInt(iova);
    PRI_ENTRY.Addr.set(words, Number(address >> 32n), Number(address & 0xffff_ffffn));
    this.#entries.push({
      start: line,
      draft: undefined,
      explanation: explainPageRequest(words, { functions: this.#functions }),
    });
  }

  /** Clients by SMMU and StreamID, as decoded lines gave them. */
  #clients(): Map<string, string> {
    const clients = new Map<string, string>();
    for (const { start, draft } of this.#entries)
      if (draft instanceof EventDraft && draft.client !== undefined && draft.sid !== undefined)
        clients.set(`${start.smmu} ${draft.sid}`, draft.client);
    return clients;
  }

  /** What the lines said, in the order of their first lines; {@link problems} is complete then. */
  finish(): Finding[] {
    const functions = this.#functions;
    const clients = this.#clients();
    const found: Finding[] = [];
    for (const { start, draft, explanation } of this.#entries) {
      if (draft !== undefined) this.problems.push(...draft.problems());
      const client = draft instanceof EventDraft ? clients.get(`${start.smmu} ${draft.sid}`) : undefined;
      const knowledge: DeviceKnowledge = { functions, ...(client === undefined ? {} : { client }) };
      const said = draft === undefined ? explanation : draft.explain(knowledge);
      if (said === undefined) continue;
      const { line, column, time, smmu } = start;
      found.push({ line, column, lastLine: draft?.lastLine ?? line, time, smmu, explanation: said });
    }
    return found;
  }
}
