/** The kernel's event interrupt: takes records out of the physical queue and finds out whose they are. */

import { hiOfNumber, loOfNumber } from '../../../bits/u64.ts';
import { CMD_RESUME, COMMAND, COMMAND_WORDS, OPCODE } from '../../../spec/commands.ts';
import { EVENT_RECORD, EVENT_SIZE, EVENT_TYPE, EVENT_WORDS } from '../../../spec/events.ts';
import { EVENTQ_BASE, EVENTQ_CONS, EVENTQ_PROD, IDR1, OFFSET } from '../../../spec/registers.ts';
import type { Smmu } from '../../../smmu/smmu.ts';
import type { HostMemory } from '../host-memory.ts';
import { type KernelLog, RateLimit } from '../kernel-log.ts';
import { eventLines } from './event-text.ts';
import type { Master } from './master.ts';

/** 128 records, if the SMMU has as many. */
const MAX_LOG2_SIZE = 7;

/** Events that may be a guest's own doing; all others are the host's business. */
const ROUTABLE = new Set<number>([
  EVENT_TYPE.C_BAD_STE,
  EVENT_TYPE.F_STREAM_DISABLED,
  EVENT_TYPE.C_BAD_SUBSTREAMID,
  EVENT_TYPE.C_BAD_CD,
  EVENT_TYPE.F_TRANSLATION,
  EVENT_TYPE.F_ADDR_SIZE,
  EVENT_TYPE.F_ACCESS,
  EVENT_TYPE.F_PERMISSION,
]);

export interface EventDrainOptions {
  readonly smmu: Smmu;
  readonly memory: HostMemory;
  readonly log: KernelLog;
  /** In front of each line: `arm-smmu-v3 NAME: `. */
  readonly prefix: string;
  readonly now: () => number;
  readonly master: (sid: number) => Master | undefined;
  readonly submit: (words: Uint32Array, count: number) => void;
}

export class EventDrain {
  /** Physical events that the host printed, or would have printed but for its rate limit. */
  unhandled = 0;
  readonly log2Size: number;
  readonly #options: EventDrainOptions;
  readonly #base: number;
  readonly #rateLimit: RateLimit;
  readonly #record = new Uint32Array(EVENT_WORDS);

  constructor(options: EventDrainOptions) {
    this.#options = options;
    this.log2Size = Math.min(IDR1.EVENTQS.of(options.smmu.ids.IDR1), MAX_LOG2_SIZE);
    this.#base = options.memory.allocate(Math.max(64, EVENT_SIZE * 2 ** this.log2Size));
    this.#rateLimit = new RateLimit(options.now);
  }

  /** Writes the queue's registers; EVENTQEN is 0. */
  setUp(): void {
    const { smmu } = this.#options;
    const base = EVENTQ_BASE.LOG2SIZE.put(this.log2Size);
    smmu.write(OFFSET.EVENTQ_BASE, 8, hiOfNumber(this.#base), loOfNumber(this.#base) | base);
    smmu.write(OFFSET.EVENTQ_PROD, 4, 0, 0);
    smmu.write(OFFSET.EVENTQ_CONS, 4, 0, 0);
  }

  /** Empties the queue. Afterwards an overflow is acknowledged. */
  run(): void {
    const { smmu, memory } = this.#options;
    for (;;) {
      const prod = smmu.read(OFFSET.EVENTQ_PROD, 4);
      const consRegister = smmu.read(OFFSET.EVENTQ_CONS, 4);
      const cons = EVENTQ_CONS.RD.of(consRegister);
      const overflow = EVENTQ_PROD.OVFLG.of(prod);
      if (cons === EVENTQ_PROD.WR.of(prod)) {
        if (overflow !== EVENTQ_CONS.OVACKFLG.of(consRegister)) {
          this.#print('EVTQ overflow detected -- events lost');
          smmu.write(OFFSET.EVENTQ_CONS, 4, 0, cons | EVENTQ_CONS.OVACKFLG.put(overflow));
        }
        return;
      }
      const slot = this.#base + (cons % 2 ** this.log2Size) * EVENT_SIZE;
      memory.memory.loadWords(hiOfNumber(slot), loOfNumber(slot), this.#record, EVENT_WORDS);
      const next = (cons + 1) % 2 ** (this.log2Size + 1);
      // The overflow flag is acknowledged only once the queue is empty.
      smmu.write(OFFSET.EVENTQ_CONS, 4, 0, next | (consRegister & EVENTQ_CONS.OVACKFLG.inPlace));
      this.#handle(this.#record);
    }
  }

  #handle(record: Uint32Array): void {
    const sid = EVENT_RECORD.StreamID.get(record);
    const master = this.#options.master(sid);
    if (master !== undefined && ROUTABLE.has(EVENT_RECORD.EventID.get(record))) {
      if (isStall(record)) {
        if (master.reportPageFault(record)) return;
        if (master.stallEnabled) this.#terminate(record);
        // The driver warns, and issues no command: the transaction waits for ever.
        else this.#options.log.print(`WARNING: arm_smmu_page_response: ${master.name} may not stall`);
      } else if (
        // A stage 2 fault is about memory that the guest does not have; only the host may know where.
        EVENT_RECORD.S2.get(record) === 0 &&
        master.vmaster?.report(record) === true
      ) {
        return;
      }
    }
    this.unhandled += 1;
    const suppressed = (count: number): void =>
      this.#options.log.print(`arm_smmu_dump_event: ${count} callbacks suppressed`);
    if (!this.#rateLimit.allow(suppressed)) return;
    for (const line of eventLines(record, master?.name)) this.#print(line);
  }

  /** Ends a stalled transaction with an abort. */
  #terminate(record: Uint32Array): void {
    const command = new Uint32Array(COMMAND_WORDS);
    COMMAND.Opcode.set(command, OPCODE.CMD_RESUME);
    CMD_RESUME.StreamID.set(command, EVENT_RECORD.StreamID.get(record));
    CMD_RESUME.STAG.set(command, EVENT_RECORD.STAG.get(record));
    CMD_RESUME.Ab.set(command, 1);
    this.#options.submit(command, 1);
  }

  #print(line: string): void {
    this.#options.log.print(this.#options.prefix + line);
  }
}

function isStall(record: Uint32Array): boolean {
  return EVENT_RECORD.EventID.get(record) >= EVENT_TYPE.F_TRANSLATION && EVENT_RECORD.Stall.get(record) === 1;
}
