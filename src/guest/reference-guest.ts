/** The embedded guest: a kernel's SMMU driver that does what Linux's arm-smmu-v3 does, and is as strict. */

import { EVENT_TYPE } from '../spec/events.ts';
import { MAX_LOG2_QUEUE_SIZE } from '../spec/queues.ts';
import { CR0, OFFSET } from '../spec/registers.ts';
import { STE_WORDS } from '../spec/ste.ts';
import type { Memory } from '../memory/memory.ts';
import { resume } from './commands.ts';
import type { CommandQueue } from './command-queue.ts';
import { type DomainOptions, GuestDomain } from './domain.ts';
import { GuestDriverError } from './errors.ts';
import { decodeEvent, type GuestEvent } from './event.ts';
import { eventLines } from './event-text.ts';
import { handleGlobalError } from './global-error.ts';
import { GuestRam } from './guest-ram.ts';
import { type Features, identify } from './identification.ts';
import { KernelLog } from './kernel-log.ts';
import type { OutputQueue } from './output-queue.ts';
import { PageAllocator } from './page-allocator.ts';
import { answerPages, decodePageRequest, type GuestPageRequest, refusePageRequest } from './page-request.ts';
import { QueueMemory } from './queue-memory.ts';
import { RateLimit } from './rate-limit.ts';
import { type GuestInterrupt, type RegisterAccess, RegisterPort } from './register-port.ts';
import { disableDevice, type MsiDoorbell, resetDevice, writeAcknowledged, writeEventQueue } from './reset.ts';
import { bypassSte } from './stream-entries.ts';
import { type MasterOptions, StreamMaster } from './stream-master.ts';
import { StreamTable } from './stream-table.ts';

/** Memory that firmware goes on using: devices reach it untranslated, from before the driver starts. */
export interface ReservedRegion {
  readonly base: number;
  readonly size: number;
  readonly sids: readonly number[];
}

export interface ReferenceGuestOptions {
  readonly registers: RegisterAccess;
  readonly memory: Memory;
  /** Guest RAM that is the driver's alone: for its queues, tables and buffers. 16 MiB hold the largest queues. */
  readonly ram: { readonly base: number; readonly size: number };
  /** Lets the rest of the machine run while the driver polls. */
  readonly relax?: () => void;
  /** Polls before a time-out. */
  readonly pollBound?: number;
  /** The kernel's name of the SMMU. */
  readonly name?: string;
  /** Where interrupts go if the SMMU writes them; without it they are wired. */
  readonly doorbell?: MsiDoorbell;
  readonly msiPolling?: boolean;
  readonly firmwareCoherent?: boolean;
  readonly vhe?: boolean;
  /** Bytes of the largest block that the kernel can allocate, which caps the queues. */
  readonly maxQueueBytes?: number;
  readonly reservedRegions?: readonly ReservedRegion[];
  /** Milliseconds, for the limit of 10 printed events in 5 seconds; without it all are printed. */
  readonly now?: () => number;
  /** Hears of each event when it is read. */
  readonly onEvent?: (event: GuestEvent) => void;
  /**
   * Decides over a stalled transaction of a device that can stall; by default it is aborted. `later`: whoever said so
   * issues the command himself.
   */
  readonly onStall?: (event: GuestEvent) => 'retry' | 'abort' | 'later';
  /**
   * Hears of each page request, and decides over its group with the last. Without it all are refused, as Linux does
   * without shared virtual addressing.
   */
  readonly onPageRequest?: (request: GuestPageRequest) => 'success' | 'invalid' | 'later';
}

export interface ProbeOptions {
  /** The kernel is there to save a crashed one's memory: it starts with the event queue off. */
  readonly kdump?: boolean;
  /** Caps of log2 of the queue sizes; firmware uses small ones. */
  readonly cmdqLog2?: number;
  readonly eventqLog2?: number;
}

/** The largest naturally aligned block of a kernel with 4 KiB pages and nothing special set. */
const MAX_QUEUE_BYTES = 0x40_0000;

/** What exists from probe to shutdown. */
interface Running {
  readonly ram: GuestRam;
  readonly features: Features;
  readonly queues: QueueMemory;
  readonly streamTable: StreamTable;
  readonly commands: CommandQueue;
  eventQueue: OutputQueue;
  readonly priQueue: OutputQueue | undefined;
  cr0: number;
}

export class ReferenceGuest {
  readonly #options: ReferenceGuestOptions;
  readonly #port: RegisterPort;
  readonly #pages: PageAllocator;
  readonly #log: KernelLog;
  readonly #limit: RateLimit;
  readonly #devices = new Map<number, StreamMaster>();
  readonly #defaultDomains = new Map<number, GuestDomain>();
  readonly #asids = new Set<number>();
  #running: Running | undefined;
  /** Events that were read, oldest first. The owner may empty it. */
  readonly events: GuestEvent[] = [];
  /** How often the overflow flag told of lost events. */
  overflows = 0;
  /** Interrupts that found nothing to do. */
  spurious = 0;

  constructor(options: ReferenceGuestOptions) {
    this.#options = options;
    this.#port = new RegisterPort(
      options.registers,
      options.relax ?? (() => {}),
      options.pollBound ?? 10_000,
    );
    this.#pages = new PageAllocator(options.ram.base, options.ram.size);
    this.#log = new KernelLog(options.name ?? 'arm-smmu-v3.0.auto');
    this.#limit = new RateLimit(options.now);
    this.#port.onStorm = () => this.#log.suspect('interrupts do not end');
  }

  /** The kernel's log, without time stamps. */
  get dmesg(): readonly string[] {
    return this.#log.lines;
  }

  /** What Linux would warn about, and what it does not check but we do. Empty if all went well. */
  get warnings(): readonly string[] {
    return this.#log.warnings;
  }

  get probed(): boolean {
    return this.#running !== undefined;
  }

  /** @throws GuestDriverError GUEST_NOT_PROBED. */
  get features(): Features {
    return this.#require().features;
  }

  /** The command queue, for commands that no method issues. @throws GuestDriverError GUEST_NOT_PROBED. */
  get commands(): CommandQueue {
    return this.#require().commands;
  }

  get eventQueueLog2(): number {
    return this.#require().eventQueue.log2Size;
  }

  /**
   * Loads the driver. When this returns, CR0.SMMUEN is 1, every StreamID aborts but those of reserved regions, and
   * events are on, unless `kdump`.
   * @throws GuestDriverError if the device is refused, does not answer, or memory is short.
   */
  probe(options: ProbeOptions = {}): void {
    if (this.#running !== undefined)
      throw new GuestDriverError('GUEST_ALREADY_PROBED', 'The driver is loaded already');
    this.#pages.reset();
    const port = this.#port;
    const log = this.#log;
    const ram = new GuestRam(this.#options.memory, this.#pages);
    const features = identify(port, log, {
      firmwareCoherent: this.#options.firmwareCoherent,
      vhe: this.#options.vhe ?? false,
      msiPolling: this.#options.msiPolling ?? true,
    });
    const queues = new QueueMemory(port, ram, log, this.#options.maxQueueBytes ?? MAX_QUEUE_BYTES);
    const commands = queues.commandQueue(
      Math.min(features.cmdqLog2, options.cmdqLog2 ?? MAX_LOG2_QUEUE_SIZE),
      features.msiPoll,
    );
    const eventqLog2 = Math.min(features.eventqLog2, options.eventqLog2 ?? MAX_LOG2_QUEUE_SIZE);
    const eventQueue = queues.eventQueue(eventqLog2);
    const priQueue = features.pri ? queues.priQueue(features.priqLog2) : undefined;
    const streamTable = new StreamTable(ram, features, log);
    for (const { sids } of this.#options.reservedRegions ?? [])
      for (const sid of sids) {
        streamTable.prepare(sid);
        ram.storeWords(streamTable.steAddress(sid), bypassSte(features), STE_WORDS);
      }
    const running: Running = { ram, features, queues, streamTable, commands, eventQueue, priQueue, cr0: 0 };
    this.#running = running;
    const { doorbell } = this.#options;
    const kdump = options.kdump ?? false;
    try {
      running.cr0 = resetDevice({ ...running, port, log, doorbell, kdump }, () => {
        port.onInterrupt = (line) => this.#handle(line);
      });
    } catch (error) {
      this.forget();
      throw error;
    }
  }

  /** Unloads the driver, as before a kexec: CR0 := 0, and nothing else. @throws GuestDriverError GUEST_ACK_TIMEOUT. */
  shutdown(): void {
    this.#require();
    this.forget();
    disableDevice(this.#port, this.#log);
  }

  /** What a system reset or a crash does to a driver: it is gone, and touches no register. Log and events remain. */
  forget(): void {
    this.#port.onInterrupt = undefined;
    this.#port.clear();
    this.#devices.clear();
    this.#defaultDomains.clear();
    this.#asids.clear();
    this.#running = undefined;
  }

  /** Tells the driver of a device. It aborts until it is attached. @throws GuestDriverError GUEST_ID_RANGE, ... */
  addDevice(options: MasterOptions): StreamMaster {
    const running = this.#require();
    if (this.#devices.has(options.sid))
      throw new GuestDriverError('GUEST_DEVICE_EXISTS', `StreamID ${options.sid} is known already`);
    const master = new StreamMaster(running, options);
    this.#devices.set(options.sid, master);
    return master;
  }

  /** Takes a device out: it aborts from now on, and its own domain goes. */
  removeDevice(sid: number): void {
    this.device(sid).release();
    this.#devices.delete(sid);
    this.#defaultDomains.get(sid)?.free();
    this.#defaultDomains.delete(sid);
  }

  /** @throws GuestDriverError GUEST_UNKNOWN_DEVICE. */
  device(sid: number): StreamMaster {
    const master = this.#devices.get(sid);
    if (master === undefined)
      throw new GuestDriverError('GUEST_UNKNOWN_DEVICE', `No device has StreamID ${sid}`);
    return master;
  }

  /** Makes an address space. @throws GuestDriverError GUEST_NO_ASID, GUEST_NO_GRANULE or GUEST_OUT_OF_MEMORY. */
  createDomain(options: DomainOptions = {}): GuestDomain {
    const { ram, features, commands } = this.#require();
    let asid = 1;
    while (this.#asids.has(asid)) asid += 1;
    if (asid >= 2 ** features.asidBits) throw new GuestDriverError('GUEST_NO_ASID', 'All ASIDs are in use');
    const released = (): void => void this.#asids.delete(asid);
    const domain = new GuestDomain({ ram, features, commands, asid, released }, options);
    this.#asids.add(asid);
    return domain;
  }

  /**
   * Translates what a device does by a domain, by default its own, which is made now with the device's reserved
   * regions in it.
   * @returns that domain.
   */
  attach(sid: number, domain?: GuestDomain): GuestDomain {
    const master = this.device(sid);
    const target = domain ?? this.#defaultDomain(sid);
    master.attach(target);
    return target;
  }

  /** Lets a device reach all memory as it is. */
  attachIdentity(sid: number): void {
    this.device(sid).attachWithoutTable('identity');
  }

  /** Aborts what a device does. */
  detach(sid: number): void {
    this.device(sid).attachWithoutTable('blocked');
  }

  /** Zeroed guest memory, such as for DMA. @returns its address, aligned to its size. */
  allocate(size: number): number {
    return this.#require().ram.allocate(size, 'a buffer');
  }

  /** Sets CR0.EVENTQEN by hand, which Linux does only while it probes. */
  setEventQueueEnabled(on: boolean): void {
    const running = this.#require();
    const bit = CR0.EVENTQEN.inPlace;
    running.cr0 = on ? running.cr0 | bit : running.cr0 & ~bit;
    writeAcknowledged(this.#port, this.#log, OFFSET.CR0, running.cr0, 'change event queue');
  }

  /** Moves the event queue to fresh memory, perhaps of another size; it is off in between, and on afterwards. */
  rebaseEventQueue(log2Size: number): void {
    const running = this.#require();
    this.setEventQueueEnabled(false);
    running.eventQueue = running.queues.eventQueue(Math.min(running.features.eventqLog2, log2Size));
    writeEventQueue(this.#port, running.eventQueue);
    this.setEventQueueEnabled(true);
  }

  /**
   * Takes an interrupt. If the device calls this from within one of the driver's own accesses, it is taken when that
   * access returns; at other times the device must be ready for accesses.
   */
  handleInterrupt(line: GuestInterrupt): void {
    this.#port.raise(line);
  }

  /** Takes a message written to the doorbell. */
  handleMessage(data: number): void {
    const { doorbell } = this.#options;
    if (data === doorbell?.eventq) this.handleInterrupt('eventq');
    else if (data === doorbell?.gerror) this.handleInterrupt('gerror');
    else if (data === doorbell?.priq) this.handleInterrupt('priq');
    else this.#log.suspect(`message ${data} at the doorbell is no vector of the SMMU`);
  }

  #require(): Running {
    if (this.#running === undefined)
      throw new GuestDriverError('GUEST_NOT_PROBED', 'The driver is not loaded');
    return this.#running;
  }

  #defaultDomain(sid: number): GuestDomain {
    let domain = this.#defaultDomains.get(sid);
    if (domain === undefined) {
      domain = this.createDomain();
      for (const region of this.#options.reservedRegions ?? [])
        if (region.sids.includes(sid)) domain.map(BigInt(region.base), region.base, region.size);
      this.#defaultDomains.set(sid, domain);
    }
    return domain;
  }

  #handle(line: GuestInterrupt): void {
    const running = this.#running;
    if (running === undefined || line === 'sync') return;
    if (line === 'gerror') {
      const found = handleGlobalError(this.#port, this.#log, {
        disable: () => disableDevice(this.#port, this.#log),
        commandError: () => running.commands.handleError(),
      });
      if (!found) this.spurious += 1;
      return;
    }
    const queue = line === 'eventq' ? running.eventQueue : running.priQueue;
    let found = false;
    queue?.drain(
      (record) => {
        found = true;
        if (line === 'eventq') this.#takeEvent(record, running);
        else this.#takePageRequest(record, running);
      },
      () => {
        found = true;
        this.overflows += 1;
        this.#log.warn(
          line === 'eventq'
            ? 'EVTQ overflow detected -- events lost'
            : 'PRIQ overflow detected -- requests lost',
        );
      },
    );
    if (!found) this.spurious += 1;
  }

  #takePageRequest(entry: Uint32Array, { commands }: Running): void {
    const { onPageRequest } = this.#options;
    if (onPageRequest === undefined) {
      const refusal = refusePageRequest(entry, this.#log);
      if (refusal !== undefined) commands.issue(refusal);
      return;
    }
    const request = decodePageRequest(entry);
    const answer = onPageRequest(request);
    if (request.last && answer !== 'later') commands.issue(answerPages(request, answer));
  }

  #takeEvent(record: Uint32Array, running: Running): void {
    const event = decodeEvent(record, (sid) => this.#devices.get(sid)?.name);
    this.events.push(event);
    this.#options.onEvent?.(event);
    if (!KNOWN_EVENTS.has(event.type)) this.#log.suspect(`event 0x${event.type.toString(16)} is not known`);
    if (event.stall && this.#devices.get(event.sid)?.canStall === true) {
      const answer = this.#options.onStall?.(event) ?? 'abort';
      if (answer !== 'later') running.commands.issue(resume(event.sid, event.stag, answer));
      if (answer !== 'abort') return;
    }
    if (this.#limit.allows()) for (const text of eventLines(event)) this.#log.info(text);
  }
}

const KNOWN_EVENTS: ReadonlySet<number> = new Set(Object.values(EVENT_TYPE));
