/** One device behind the SMMU: its STE, its CDs, its ATS, and the domains it is attached to. */

import { CD_WORDS } from '../spec/cd.ts';
import { atcInvAll, cfgiCd, cfgiSte, prefetchConfig } from './commands.ts';
import type { CommandQueue } from './command-queue.ts';
import { CD_KIND, contextDescriptor, ContextTable } from './context-table.ts';
import type { Attachment, GuestDomain } from './domain.ts';
import { writeEntry } from './entry-writer.ts';
import { GuestDriverError } from './errors.ts';
import type { GuestRam } from './guest-ram.ts';
import type { Features } from './identification.ts';
import { abortSte, bypassSte, STE_KIND, stageOneSte, type StageOneStream } from './stream-entries.ts';
import type { StreamTable } from './stream-table.ts';

/** The switch in the device's own configuration space. */
export interface EndpointAts {
  enable(): void;
  disable(): void;
}

export interface MasterOptions {
  readonly sid: number;
  /** The kernel's name of the device, such as `0000:00:01.0`. */
  readonly name: string;
  /** Bits of SubstreamID (PASID) that it can send; 0 if none. */
  readonly ssidBits?: number;
  /** It copes with stalled transactions; PCIe devices do not. */
  readonly canStall?: boolean;
  /** Given for a device with ATS. */
  readonly ats?: EndpointAts;
}

export interface MasterParts {
  readonly ram: GuestRam;
  readonly features: Features;
  readonly commands: CommandQueue;
  readonly streamTable: StreamTable;
}

export class StreamMaster {
  readonly sid: number;
  readonly name: string;
  readonly canStall: boolean;
  readonly #parts: MasterParts;
  readonly #ssidBits: number;
  readonly #ats: EndpointAts | undefined;
  #atsEnabled = false;
  /** What transactions without SubstreamID do. */
  #mode: 'blocked' | 'identity' | GuestDomain = 'blocked';
  #table: ContextTable | undefined;
  readonly #attachments = new Map<number, { domain: GuestDomain; attachment: Attachment }>();
  /** Whether the STE leads to the table of CDs. */
  #tableInSte = false;

  /** Gives the StreamID an STE if it has none; one that is there, such as a firmware's bypass, stays as it is. */
  constructor(parts: MasterParts, options: MasterOptions) {
    this.#parts = parts;
    this.sid = options.sid;
    this.name = options.name;
    this.canStall = parts.features.stallForce || (parts.features.stalls && options.canStall === true);
    this.#ssidBits = options.ssidBits ?? 0;
    this.#ats = parts.features.ats ? options.ats : undefined;
    parts.streamTable.prepare(options.sid);
  }

  get atsEnabled(): boolean {
    return this.#atsEnabled;
  }

  get mode(): 'blocked' | 'identity' | GuestDomain {
    return this.#mode;
  }

  /** Translates by a domain. In a device that was translated before, CD 0 is invalid for a moment. */
  attach(domain: GuestDomain): void {
    const ats = this.#ats !== undefined;
    this.#switchAtsOff(ats);
    const before = this.#enter(0, domain);
    this.#writeCd(0, contextDescriptor(domain.addressSpace(this.canStall), this.#parts.features));
    this.#writeStageOne({ withoutSsid: 'cd0', ats, stalls: this.canStall });
    before();
    this.#mode = domain;
    this.#commitAts(ats);
  }

  /** Aborts or passes what comes without SubstreamID. */
  attachWithoutTable(mode: 'blocked' | 'identity'): void {
    const hasPasids = [...this.#attachments.keys()].some((ssid) => ssid !== 0);
    // Translations by SubstreamID may use ATS, and ATS is the same switch for all.
    const ats = hasPasids && this.#ats !== undefined;
    this.#switchAtsOff(ats);
    if (hasPasids)
      this.#writeStageOne({
        withoutSsid: mode === 'identity' ? 'bypass' : 'terminate',
        ats,
        stalls: this.canStall,
      });
    else {
      this.#writeSte(mode === 'identity' ? bypassSte(this.#parts.features) : abortSte());
      this.#tableInSte = false;
    }
    this.#mode = mode;
    this.#commitAts(ats);
    this.#leave(0);
    if (this.#table !== undefined) this.#writeCd(0, new Uint32Array(CD_WORDS));
  }

  /** Translates what comes with a SubstreamID by a domain. @throws GuestDriverError GUEST_ID_RANGE. */
  attachPasid(ssid: number, domain: GuestDomain): void {
    if (ssid <= 0) throw new GuestDriverError('GUEST_ID_RANGE', 'SubstreamID 0 is the device itself');
    const ats = this.#ats !== undefined;
    const before = this.#enter(ssid, domain);
    this.#writeCd(ssid, contextDescriptor(domain.addressSpace(this.canStall), this.#parts.features));
    if (!this.#tableInSte)
      this.#writeStageOne({
        withoutSsid: this.#mode === 'identity' ? 'bypass' : 'terminate',
        ats,
        stalls: this.canStall,
      });
    before();
    this.#commitAts(ats);
  }

  /** Ends that. The last SubstreamID of a device that is not translated otherwise takes the table of CDs with it. */
  detachPasid(ssid: number): void {
    if (ssid <= 0 || !this.#attachments.has(ssid)) return;
    this.#writeCd(ssid, new Uint32Array(CD_WORDS));
    if (this.#atsEnabled) this.#parts.commands.issueAndSync(atcInvAll(this.sid, ssid));
    this.#leave(ssid);
    if (this.#attachments.size === 0 && typeof this.#mode === 'string') this.attachWithoutTable(this.#mode);
  }

  /** Blocks the device and gives its table of CDs back. */
  release(): void {
    for (const ssid of this.#attachments.keys()) this.detachPasid(ssid);
    if (this.#mode !== 'blocked') this.attachWithoutTable('blocked');
    this.#table?.free();
    this.#table = undefined;
  }

  #requireTable(): ContextTable {
    return (this.#table ??= new ContextTable(this.#parts.ram, this.#parts.features, this.#ssidBits));
  }

  /** Enters the domain's list of users, and returns what takes the former entry out: in between both are invalidated. */
  #enter(ssid: number, domain: GuestDomain): () => void {
    this.#requireTable().cdAddress(ssid, () => this.#syncCd(ssid, false));
    const former = this.#attachments.get(ssid);
    const isOn = (): boolean => this.#atsEnabled;
    const attachment: Attachment = {
      sid: this.sid,
      ssid,
      get ats() {
        return isOn();
      },
    };
    domain.attachments.add(attachment);
    this.#attachments.set(ssid, { domain, attachment });
    return () => former?.domain.attachments.delete(former.attachment);
  }

  #leave(ssid: number): void {
    const entry = this.#attachments.get(ssid);
    entry?.domain.attachments.delete(entry.attachment);
    this.#attachments.delete(ssid);
  }

  #writeStageOne(stream: StageOneStream): void {
    this.#writeSte(stageOneSte(this.#requireTable(), stream, this.#parts.features));
    this.#tableInSte = true;
  }

  #writeSte(target: Uint32Array): void {
    const { ram, streamTable, commands } = this.#parts;
    writeEntry(ram, STE_KIND, streamTable.steAddress(this.sid), target, () =>
      commands.issueAndSync(cfgiSte(this.sid)),
    );
    // A hint that the entry will be wanted soon; nothing waits for it.
    commands.issue(prefetchConfig(this.sid));
  }

  #writeCd(ssid: number, target: Uint32Array): void {
    const at = this.#requireTable().cdAddress(ssid, () => this.#syncCd(ssid, false));
    writeEntry(this.#parts.ram, CD_KIND, at, target, () => this.#syncCd(ssid, true));
  }

  #syncCd(ssid: number, leaf: boolean): void {
    this.#parts.commands.issueAndSync(cfgiCd(this.sid, ssid, leaf));
  }

  /** The device stops asking before the STE refuses it. */
  #switchAtsOff(wanted: boolean): void {
    if (!wanted && this.#atsEnabled) this.#ats?.disable();
  }

  /** The device starts asking only with an empty cache, and what it cached of a former address space goes. */
  #commitAts(wanted: boolean): void {
    if (wanted || this.#atsEnabled) this.#parts.commands.issueAndSync(atcInvAll(this.sid, 0));
    if (wanted && !this.#atsEnabled) this.#ats?.enable();
    this.#atsEnabled = wanted;
  }
}
