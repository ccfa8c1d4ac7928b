/** A register double: it writes down every access, acknowledges at once and consumes commands without doing them. */

import { OPCODE } from '../../src/spec/commands.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import type { RegisterAccess } from '../../src/guest/register-port.ts';
import { ReferenceGuest, type ReferenceGuestOptions } from '../../src/guest/reference-guest.ts';
import { Memory } from '../../src/memory/memory.ts';

/** ID registers of the SMMU whose accesses were recorded with a Linux 7.3 guest. */
export const RECORDED_IDS = { IDR0: 0x0d44_101a, IDR1: 0x0273_0010, IDR3: 0x1404, IDR5: 0x74 };

export class ScriptedSmmu implements RegisterAccess {
  readHi = 0;
  /** `r 0x24`, `w 0x20=0x8`, `w64 0x80=0x40000000:0x1000`. */
  accesses: string[] = [];
  /** Words of each command, in order of consumption. */
  readonly commands: Uint32Array[] = [];
  readonly values = new Map<number, number>();
  readonly memory: Memory;
  /** Called instead of acknowledging, consuming or storing a write; return true to do nothing more. */
  onWrite: ((offset: number, value: number) => boolean) | undefined;
  /** Called before a read; what it returns is read, unless undefined. */
  onRead: ((offset: number) => number | undefined) | undefined;

  constructor(memory: Memory, ids: Partial<typeof RECORDED_IDS> & { IIDR?: number } = {}) {
    this.memory = memory;
    for (const [name, value] of Object.entries({ ...RECORDED_IDS, ...ids }))
      this.values.set(OFFSET[name as keyof typeof OFFSET], value);
  }

  read(offset: number): number {
    this.accesses.push(`r 0x${offset.toString(16)}`);
    return this.onRead?.(offset) ?? this.values.get(offset) ?? 0;
  }

  write(offset: number, size: 4 | 8, hi: number, lo: number): void {
    const value = size === 8 ? `0x${hi.toString(16)}:0x${lo.toString(16)}` : `0x${lo.toString(16)}`;
    this.accesses.push(`w${size === 8 ? '64' : ''} 0x${offset.toString(16)}=${value}`);
    if (this.onWrite?.(offset, lo) === true) return;
    this.values.set(offset, lo);
    if (size === 8) this.values.set(offset + 4, hi);
    if (offset === OFFSET.CR0 || offset === OFFSET.IRQ_CTRL) this.values.set(offset + 4, lo);
    if (offset === OFFSET.CMDQ_PROD) this.consume();
  }

  /** Takes commands until CONS equals PROD; a CMD_SYNC with an address writes its data there. */
  consume(): void {
    const base = this.values.get(OFFSET.CMDQ_BASE) ?? 0;
    const log2Size = base & 0x1f;
    const hi = (this.values.get(OFFSET.CMDQ_BASE + 4) ?? 0) & 0xf_ffff;
    const prod = this.values.get(OFFSET.CMDQ_PROD) ?? 0;
    let cons = this.values.get(OFFSET.CMDQ_CONS) ?? 0;
    while (cons !== prod) {
      const words = new Uint32Array(4);
      const index = cons & (2 ** log2Size - 1);
      this.memory.loadWords(hi, ((base & ~0x1f) >>> 0) + index * 16, words, 4);
      this.commands.push(words);
      if ((words[0] & 0xff) === OPCODE.CMD_SYNC && ((words[0] >>> 12) & 3) === 1)
        this.memory.store32(words[3], words[2], words[1]);
      cons = (cons + 1) & (2 ** (log2Size + 1) - 1);
    }
    this.values.set(OFFSET.CMDQ_CONS, cons);
  }

  /** Opcodes of the commands since the last call. */
  takeOpcodes(): string[] {
    return this.commands.splice(0).map((words) => {
      const name = Object.entries(OPCODE).find(([, opcode]) => opcode === (words[0] & 0xff))?.[0];
      return name?.slice('CMD_'.length) ?? `0x${(words[0] & 0xff).toString(16)}`;
    });
  }
}

export const RAM_BASE = 0x4000_0000;

export interface Bench {
  readonly memory: Memory;
  readonly smmu: ScriptedSmmu;
  readonly guest: ReferenceGuest;
}

/** A guest on a scripted SMMU, not probed. 32 MiB of RAM at 0x40000000 are the driver's. */
export function bench(
  ids: Partial<typeof RECORDED_IDS> = {},
  options: Partial<ReferenceGuestOptions> = {},
): Bench {
  const memory = new Memory();
  memory.addRam(0, RAM_BASE, new Uint8Array(0x200_0000));
  const smmu = new ScriptedSmmu(memory, ids);
  const guest = new ReferenceGuest({
    registers: smmu,
    memory,
    ram: { base: RAM_BASE, size: 0x200_0000 },
    pollBound: 20,
    name: '3e000000.smmuv3',
    ...options,
  });
  return { memory, smmu, guest };
}
