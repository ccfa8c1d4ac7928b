/** The lab's SMMUs as their driver leaves them: whether it has handled every event. */

import { readdirSync, readFileSync } from 'node:fs';

import { IORT_NODE, readIort } from '../../../src/firmware/iort.ts';
import { MAP_SHARED, O_RDWR, PROT_READ } from '../../../src/sys/linux.ts';
import type { Syscalls } from '../../../src/sys/syscalls.ts';

/** Registers of page 1, in words from its beginning. */
const EVENTQ_PROD = 0xa8 / 4;
const EVENTQ_CONS = 0xac / 4;
const PAGE_1 = 0x1_0000n;
/** An overflow is acknowledged by the driver when it likes. */
const INDEX = 0x7fff_ffff;

const LONGEST_WAIT_MS = 5_000;

const table = (): Uint8Array => readFileSync('/sys/firmware/acpi/tables/IORT');

/** The driver's thread for events, one for each SMMU: "irq/21-arm-smmu-v3-evtq", cut to 15 characters. */
function eventThreads(): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    const name = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
    // A kernel's thread has no command line, and shows its whole name in its status.
    if (name !== '') continue;
    if (/^Name:\tirq\/\d+-arm-smm/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')))
      found.push(`/proc/${pid}/stat`);
  }
  return found;
}

export class PhysicalSmmus {
  readonly #registers: Uint32Array[] = [];
  readonly #threads = eventThreads();
  readonly #nap = new Int32Array(new SharedArrayBuffer(4));

  constructor(sys: Syscalls) {
    const memory = sys.open('/dev/mem', O_RDWR);
    for (const { type, data } of readIort(table()).nodes) {
      if (type !== IORT_NODE.SmmuV3) continue;
      const base = new DataView(data.buffer, data.byteOffset).getBigUint64(0, true);
      const address = sys.mmap(0n, 4096, PROT_READ, MAP_SHARED, memory, Number(base + PAGE_1));
      if (address < 0n) throw new Error(`/dev/mem cannot be mapped (errno ${-address})`);
      // One element is one access of 32 bits, which is all that QEMU's registers take.
      this.#registers.push(new Uint32Array(sys.view(address, 4096)));
    }
    sys.close(memory);
    if (this.#registers.length === 0 || this.#threads.length === 0) throw new Error('There is no SMMU');
  }

  /** Waits until no event is on its way from an SMMU to whom it concerns. */
  settle(): void {
    const end = Date.now() + LONGEST_WAIT_MS;
    while (!this.#settled) {
      if (Date.now() > end) throw new Error(`The SMMU's driver has not handled its events: ${this.#state}`);
      this.nap(0.2);
    }
  }

  /** Does nothing for a while. */
  nap(ms: number): void {
    Atomics.wait(this.#nap, 0, 0, ms);
  }

  get #settled(): boolean {
    // The driver takes an event off the queue first and handles it then; its thread sleeps when it has.
    return (
      this.#registers.every((page) => ((page[EVENTQ_PROD] ^ page[EVENTQ_CONS]) & INDEX) === 0) &&
      this.#threads.every((stat) => / S /.test(readFileSync(stat, 'latin1')))
    );
  }

  get #state(): string {
    return this.#registers
      .map((page) => `PROD=0x${page[EVENTQ_PROD].toString(16)} CONS=0x${page[EVENTQ_CONS].toString(16)}`)
      .join(', ');
  }
}
