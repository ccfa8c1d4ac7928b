/**
 * What is measured: the rows of the peer's benchmark under their own names, and more. A row's function does `operations`
 * of what its name says.
 */

import { QEMU_LIKE, identify } from '../src/smmu/identification.ts';
import { buildCd, buildSte, writeDwords } from '../test/support/tables.ts';
import { BridgeMachine } from './bridge.ts';
import { BenchMachine, STREAM, type Stages } from './machine.ts';

export interface Row {
  readonly name: string;
  readonly operations: number;
  /** Builds what the row needs, and gives the function to time. */
  readonly prepare: () => () => void;
}

const BATCH = 4096;
const PAGES = 4096;
const VMID = { s1: 1, s2: 2, nested: 3, bypass: 0 } as const;
type Command = readonly [number, number, number, number];
const SYNC: Command = [0x46, 0, 0, 0];
const NSNH_ALL: Command = [0x30, 0, 0, 0];

/** Translations over a working set of pages. */
function hits(name: string, stages: Stages, pages: number): Row {
  return {
    name,
    operations: BATCH,
    prepare() {
      const machine = new BenchMachine(PAGES);
      const { smmu, transaction, result } = machine;
      const sid = STREAM[stages];
      return () => {
        for (let i = 0, page = 0; i < BATCH; i++) {
          machine.aim(sid, page);
          smmu.translate(transaction, result);
          if (++page === pages) page = 0;
        }
      };
    },
  };
}

/** Translations over 64 pages with NSNH_ALL and CMD_SYNC every 64, so that each misses. */
function invalidatedAll(stages: Stages): Row {
  return {
    name: `${stages}_ws64_inv64`,
    operations: BATCH,
    prepare() {
      const machine = new BenchMachine(PAGES);
      const { smmu, transaction, result } = machine;
      const sid = STREAM[stages];
      return () => {
        for (let i = 0; i < BATCH; i++) {
          if ((i & 63) === 0) {
            machine.queue(...NSNH_ALL);
            machine.queue(...SYNC);
            machine.ring();
          }
          machine.aim(sid, i & 63);
          smmu.translate(transaction, result);
        }
      };
    },
  };
}

/** Translations over 64 pages, each after an invalidation of its page (stage 1) or VMID and a CMD_SYNC. */
function invalidatedEach(stages: Stages): Row {
  return {
    name: `${stages}_ws64_inv1`,
    operations: BATCH,
    prepare() {
      const machine = new BenchMachine(PAGES);
      const { smmu, transaction, result } = machine;
      const sid = STREAM[stages];
      const vmid = VMID[stages];
      return () => {
        for (let i = 0; i < BATCH; i++) {
          machine.aim(sid, i & 63);
          if (stages === 's1')
            machine.queue(0x12, 0x1_0000 | vmid, transaction.addrLo | 1, transaction.addrHi);
          else machine.queue(0x28, vmid, 0, 0);
          machine.queue(...SYNC);
          machine.ring();
          smmu.translate(transaction, result);
        }
      };
    },
  };
}

/** 2047 commands and a CMD_SYNC in one doorbell, with so many other entries in the TLB. */
function command(name: string, words: Command, entries: number): Row {
  return {
    name: `${name}@${entries}`,
    operations: 2048,
    prepare() {
      // More than the default holds want a larger TLB.
      const log2TlbEntries = entries > PAGES ? Math.log2(entries) + 1 : undefined;
      const machine = new BenchMachine(Math.max(entries, 16), { log2TlbEntries });
      const { smmu, transaction, result } = machine;
      const fill = (): void => {
        for (let i = 0; i < entries; i++) {
          machine.aim(STREAM.s1, i);
          smmu.translate(transaction, result);
        }
      };
      fill();
      // The queue keeps its contents: a doorbell makes the SMMU go round it once.
      const step = words[2] === 0 ? 0 : 4096;
      for (let i = 0; i < 2047; i++) machine.queue(words[0], words[1], words[2] + (i & 63) * step, words[3]);
      machine.queue(...SYNC);
      machine.ring();
      return () => machine.ringRound();
    },
  };
}

/** Faulting transactions that each record an event; the queue is emptied every 1024. */
function events(name: string, sid: number): Row {
  return {
    name,
    operations: BATCH,
    prepare() {
      const machine = new BenchMachine(16);
      const { smmu, transaction, result } = machine;
      return () => {
        for (let i = 0; i < BATCH; i++) {
          machine.aim(sid, 5000);
          smmu.translate(transaction, result);
          if ((i & 1023) === 1023) machine.drain();
        }
      };
    },
  };
}

/**
 * Records from the host through the bridge, 64 a turn.
 * @param taken what the guest takes after each turn.
 */
function bridge(name: string, sids: readonly number[], devices: number, taken: number): Row {
  return {
    name,
    operations: BATCH,
    prepare() {
      const machine = new BridgeMachine(sids, devices);
      // As it is in the midst of it: what can fill up is full.
      if (taken < 64) for (let i = 0; i < 100; i++) machine.turn();
      return () => {
        for (let i = 0; i < BATCH; i += 64) {
          machine.turn();
          if (taken > 0) machine.take(taken);
        }
      };
    },
  };
}

const STORM = 8;
/** One record in 64 is another device's. */
const STORM_AND_VICTIM = Array.from({ length: 64 }, (_, i) => (i === 31 ? 9 : STORM));
const STORMS = (devices: number): number[] => Array.from({ length: devices }, (_, i) => STORM + i);

/** 65,536 StreamIDs in a two-level table, each with its own STE, one access each. */
const MANY_STREAMS: Row = {
  name: 's1_streams65536',
  operations: 65536,
  prepare() {
    const machine = new BenchMachine(16);
    machine.manyStreams();
    const { smmu, transaction, result } = machine;
    return () => {
      for (let sid = 0; sid < 65536; sid++) {
        machine.aim(sid, 0);
        smmu.translate(transaction, result);
      }
    };
  },
};

/** 16 streams with ASIDs of their own that map the same pages, and 16 SubstreamIDs of one stream likewise. */
function contexts(name: string, substreams: boolean): Row {
  return {
    name,
    operations: BATCH,
    prepare() {
      const machine = new BenchMachine(64, { ids: identify(QEMU_LIKE, { SSIDSIZE: 8, CD2L: 1 }) });
      const { smmu, transaction, result } = machine;
      const cds = machine.take(64 * 16);
      for (let i = 0; i < 16; i++) {
        const cd = buildCd({ T0SZ: 16, IPS: 4, TTB0: machine.s1Base, ASID: 100 + i });
        writeDwords(machine.memory, cds + BigInt(64 * i), cd);
        machine.putSte(32 + i, buildSte({ Config: 5, S1ContextPtr: cds + BigInt(64 * i), S2VMID: 1 }));
      }
      machine.putSte(31, buildSte({ Config: 5, S1ContextPtr: cds, S1CDMax: 4, S2VMID: 1 }));
      return () => {
        for (let i = 0; i < BATCH; i++) {
          machine.aim(substreams ? 31 : 32 + (i & 15), (i >>> 4) & 63);
          transaction.ssv = substreams;
          transaction.ssid = i & 15;
          smmu.translate(transaction, result);
        }
      };
    },
  };
}

const COMMANDS: readonly (readonly [string, Command])[] = [
  ['cmd_tlbi_nh_va', [0x12, 0x1_0009, 0x500_0001, 0]],
  ['cmd_tlbi_nh_va_ril', [0x12 | (3 << 12), 0x1_0009, 0x500_0401, 0]],
  ['cmd_tlbi_nh_asid', [0x11, 0x5_0009, 0, 0]],
  ['cmd_tlbi_nsnh_all', NSNH_ALL],
  ['cmd_cfgi_ste', [0x03, 99, 1, 0]],
  ['cmd_sync', SYNC],
];

export const ROWS: readonly Row[] = [
  hits('dma_ste_bypass', 'bypass', 1),
  ...(['s1', 's2', 'nested'] as const).flatMap((stages) => [
    ...[1, 64, 256, 4096].map((pages) => hits(`${stages}_ws${pages}`, stages, pages)),
    invalidatedAll(stages),
    invalidatedEach(stages),
  ]),
  ...[0, 64, 65536].flatMap((entries) => COMMANDS.map(([name, words]) => command(name, words, entries))),
  events('event_s1', STREAM.s1),
  events('event_s2', STREAM.s2),
  events('event_nested', STREAM.nested),
  events('event_bad_ste', 5),
  bridge('bridge_one_device', [STORM], 1, 64),
  bridge('bridge_two_devices', STORM_AND_VICTIM, 2, 64),
  bridge('bridge_storm_slow', STORM_AND_VICTIM, 2, 8),
  bridge('bridge_storm_unread', STORM_AND_VICTIM, 2, 0),
  bridge('bridge_storms64_unread', STORMS(64), 64, 0),
  MANY_STREAMS,
  contexts('s1_asids16', false),
  contexts('s1_ssids16', true),
];
