/**
 * The kernel's PRI interrupt: takes page requests out of the physical queue. Linux 7.3 prints and denies them all. A
 * driver of another kind collects groups and hands them over; it is here so that there is something to show for PRI.
 */

import { hex32, hex64, hiOfNumber, loOfNumber } from '../../../bits/u64.ts';
import { CMD_PRI_RESP, COMMAND, COMMAND_WORDS, OPCODE, PRI_RESP } from '../../../spec/commands.ts';
import { PRI_ENTRY, PRI_ENTRY_SIZE, PRI_ENTRY_WORDS } from '../../../spec/queues.ts';
import { EVENTQ_BASE, EVENTQ_CONS, EVENTQ_PROD, IDR1, OFFSET } from '../../../spec/registers.ts';
import type { Smmu } from '../../../smmu/smmu.ts';
import type { HostMemory } from '../host-memory.ts';
import type { Master } from './master.ts';

/** 256 entries, if the SMMU has as many. */
const MAX_LOG2_SIZE = 8;

export interface PriDrainOptions {
  readonly smmu: Smmu;
  readonly memory: HostMemory;
  readonly print: (line: string) => void;
  readonly master: (sid: number) => Master | undefined;
  readonly submit: (words: Uint32Array, count: number) => void;
  /** Not Linux 7.3: groups go to the device's FAULT_QUEUE, if it has one. */
  readonly handOver: boolean;
}

export class PriDrain {
  readonly #options: PriDrainOptions;
  readonly #log2Size: number;
  readonly #base: number;
  /** Entries of groups of which the last has not come yet. */
  readonly #partial = new Map<string, Uint32Array[]>();

  constructor(options: PriDrainOptions) {
    this.#options = options;
    this.#log2Size = Math.min(IDR1.PRIQS.of(options.smmu.ids.IDR1), MAX_LOG2_SIZE);
    this.#base = options.memory.allocate(Math.max(64, PRI_ENTRY_SIZE * 2 ** this.#log2Size));
  }

  /** Writes the queue's registers; PRIQEN is 0. */
  setUp(): void {
    const { smmu } = this.#options;
    const base = EVENTQ_BASE.LOG2SIZE.put(this.#log2Size);
    smmu.write(OFFSET.PRIQ_BASE, 8, hiOfNumber(this.#base), loOfNumber(this.#base) | base);
    smmu.write(OFFSET.PRIQ_PROD, 4, 0, 0);
    smmu.write(OFFSET.PRIQ_CONS, 4, 0, 0);
  }

  /** Empties the queue, and acknowledges an overflow. */
  run(): void {
    const { smmu, memory } = this.#options;
    const size = 2 ** this.#log2Size;
    for (;;) {
      const prod = smmu.read(OFFSET.PRIQ_PROD, 4);
      const cons = EVENTQ_CONS.RD.of(smmu.read(OFFSET.PRIQ_CONS, 4));
      const overflow = EVENTQ_CONS.OVACKFLG.put(EVENTQ_PROD.OVFLG.of(prod));
      if (cons === EVENTQ_PROD.WR.of(prod)) {
        smmu.write(OFFSET.PRIQ_CONS, 4, 0, (cons | overflow) >>> 0);
        return;
      }
      const slot = this.#base + (cons % size) * PRI_ENTRY_SIZE;
      const entry = new Uint32Array(PRI_ENTRY_WORDS);
      memory.memory.loadWords(hiOfNumber(slot), loOfNumber(slot), entry, PRI_ENTRY_WORDS);
      smmu.write(OFFSET.PRIQ_CONS, 4, 0, (((cons + 1) % (2 * size)) | overflow) >>> 0);
      if (this.#options.handOver) this.#collect(entry);
      else this.#deny(entry);
    }
  }

  #collect(entry: Uint32Array): void {
    const sid = PRI_ENTRY.StreamID.get(entry);
    const key = `${sid} ${PRI_ENTRY.PRGIndex.get(entry)}`;
    const group = [...(this.#partial.get(key) ?? []), entry];
    if (PRI_ENTRY.Last.get(entry) === 0) {
      this.#partial.set(key, group);
      return;
    }
    this.#partial.delete(key);
    const answer = (success: boolean): void =>
      this.#respond(entry, success ? PRI_RESP.Success : PRI_RESP.InvalidRequest);
    if (this.#options.master(sid)?.requestPages(group, answer) !== true)
      this.#respond(entry, PRI_RESP.ResponseFailure);
  }

  #deny(entry: Uint32Array): void {
    const { print } = this.#options;
    const sid = PRI_ENTRY.StreamID.get(entry);
    const ssid = PRI_ENTRY.SSV.get(entry) === 1 ? PRI_ENTRY.SubstreamID.get(entry) : 0;
    const last = PRI_ENTRY.Last.get(entry) === 1;
    print('unexpected PRI request received:');
    print(
      `\tsid ${hex32(sid, 8)}.${hex32(ssid, 5)}: [${PRI_ENTRY.PRGIndex.get(entry)}${last ? 'L' : ''}]` +
        ` ${PRI_ENTRY.Priv.get(entry) ? '' : 'un'}privileged` +
        ` ${PRI_ENTRY.R.get(entry) ? 'R' : ''}${PRI_ENTRY.W.get(entry) ? 'W' : ''}` +
        `${PRI_ENTRY.X.get(entry) ? 'X' : ''} access at iova ` +
        hex64(PRI_ENTRY.Addr.getHi(entry), PRI_ENTRY.Addr.getLo(entry), 16),
    );
    if (last) this.#respond(entry, PRI_RESP.ResponseFailure);
  }

  #respond(entry: Uint32Array, response: number): void {
    const command = new Uint32Array(COMMAND_WORDS);
    const ssv = PRI_ENTRY.SSV.get(entry);
    COMMAND.Opcode.set(command, OPCODE.CMD_PRI_RESP);
    CMD_PRI_RESP.StreamID.set(command, PRI_ENTRY.StreamID.get(entry));
    CMD_PRI_RESP.SSV.set(command, ssv);
    CMD_PRI_RESP.SubstreamID.set(command, ssv === 1 ? PRI_ENTRY.SubstreamID.get(entry) : 0);
    CMD_PRI_RESP.PRGIndex.set(command, PRI_ENTRY.PRGIndex.get(entry));
    CMD_PRI_RESP.Resp.set(command, response);
    this.#options.submit(command, 1);
  }
}
