/** The driver's way to the SMMU's registers, and where interrupts meet it. */

/** Register access as the device offers it: the high half of an 8-byte read is in `readHi` afterwards. */
export interface RegisterAccess {
  read(offset: number, size: 4 | 8): number;
  readonly readHi: number;
  write(offset: number, size: 4 | 8, hi: number, lo: number): void;
}

/** Interrupt lines of an SMMU. The driver never uses `sync`. */
export type GuestInterrupt = 'eventq' | 'gerror' | 'priq' | 'sync';

/** GERROR comes first: it is what lets a stopped command queue go on, and the other handlers issue commands. */
const SERVICE_ORDER: readonly GuestInterrupt[] = ['gerror', 'eventq', 'priq', 'sync'];

/** More rounds than this without a pause are a storm: a line that is raised by its own handling. */
const STORM = 10_000;

/**
 * Registers plus pending interrupts. A handler never runs inside a call into the device, but right after it, as if
 * another CPU had taken the interrupt: the device need not be prepared for accesses from within its own `raise`.
 */
export class RegisterPort {
  readonly #registers: RegisterAccess;
  readonly #relax: () => void;
  readonly #bound: number;
  readonly #pending = new Set<GuestInterrupt>();
  #inside = 0;
  #serving = false;
  /** Called for each interrupt; until set, interrupts stay pending, as in an interrupt controller. */
  onInterrupt: ((line: GuestInterrupt) => void) | undefined;
  /** Called once if interrupts do not come to an end. */
  onStorm: (() => void) | undefined;

  /**
   * @param relax lets the rest of the machine run, between two polls.
   * @param bound how often to poll before giving up; stands for the driver's one second.
   */
  constructor(registers: RegisterAccess, relax: () => void, bound: number) {
    this.#registers = registers;
    this.#relax = relax;
    this.#bound = bound;
  }

  read(offset: number): number {
    return this.#call(() => this.#registers.read(offset, 4) >>> 0);
  }

  write(offset: number, value: number): void {
    this.#call(() => this.#registers.write(offset, 4, 0, value >>> 0));
  }

  write64(offset: number, hi: number, lo: number): void {
    this.#call(() => this.#registers.write(offset, 8, hi >>> 0, lo >>> 0));
  }

  /** Tries until `done` says so, with the machine running in between. @returns false if it never did. */
  poll(done: () => boolean): boolean {
    for (let i = 0; i < this.#bound; i++) {
      if (done()) return true;
      this.#call(this.#relax);
    }
    return done();
  }

  /** Marks an interrupt pending, and takes it if no call into the device is under way. */
  raise(line: GuestInterrupt): void {
    this.#pending.add(line);
    if (this.#inside === 0) this.#service();
  }

  /** Forgets what is pending. */
  clear(): void {
    this.#pending.clear();
  }

  /** Leaves the driver for a while: what is raised meanwhile waits until this returns. */
  #call<T>(out: () => T): T {
    this.#inside += 1;
    try {
      return out();
    } finally {
      this.#inside -= 1;
      if (this.#inside === 0 && this.#pending.size > 0) this.#service();
    }
  }

  #service(): void {
    if (this.#serving) return;
    this.#serving = true;
    try {
      for (let round = 0; this.#pending.size > 0 && this.onInterrupt !== undefined; round++) {
        if (round === STORM) {
          this.#pending.clear();
          this.onStorm?.();
          return;
        }
        for (const line of SERVICE_ORDER) if (this.#pending.delete(line)) this.onInterrupt(line);
      }
    } finally {
      this.#serving = false;
    }
  }
}
