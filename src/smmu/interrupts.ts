/**
 * GERROR and interrupts (IHI 0070 3.18, 6.3.16, 6.3.19, 7.5): four sources, each a wired edge and, with IDR0.MSI, a
 * 32-bit write. They are in one place because each can cause the other: an MSI that aborts is a global error.
 */

import { GERROR, IDR0, IRQ_CFG0, IRQ_CTRL, OFFSET } from '../spec/registers.ts';
import { outputAddressBits, type IdRegisters } from './identification.ts';
import type { InterruptPort, Trace } from './ports.ts';
import { wordOf } from './register-file.ts';

const GERROR_WORD = wordOf(OFFSET.GERROR);
const GERRORN_WORD = wordOf(OFFSET.GERRORN);
const IRQ_CTRL_WORD = wordOf(OFFSET.IRQ_CTRL);
const EVENTQ_IRQEN = IRQ_CTRL.EVENTQ_IRQEN.inPlace;
const PRIQ_IRQEN = IRQ_CTRL.PRIQ_IRQEN.inPlace;
const GERROR_IRQEN = IRQ_CTRL.GERROR_IRQEN.inPlace;

/** Numbers of the interrupt in the trace event `smmuv3_trigger_irq`, as QEMU numbers them. */
const TRACE_IRQ = { eventq: 0, priq: 1, sync: 2, gerror: 3 } as const;

export class Interrupts {
  readonly #page0: Uint32Array;
  readonly #port: InterruptPort;
  readonly #msi: boolean;
  readonly #addressMaskHi: number;
  readonly #trace: Trace | undefined;

  constructor(ids: IdRegisters, page0: Uint32Array, port: InterruptPort, trace: Trace | undefined) {
    this.#page0 = page0;
    this.#port = port;
    this.#msi = IDR0.MSI.of(ids.IDR0) === 1;
    this.#addressMaskHi = (2 ** (outputAddressBits(ids) - 32) - 1) >>> 0;
    this.#trace = trace;
  }

  /** Bits of GERROR that are active: not acknowledged through GERRORN. */
  get active(): number {
    return (this.#page0[GERROR_WORD] ^ this.#page0[GERRORN_WORD]) >>> 0;
  }

  /**
   * Activates one error of GERROR, given as its bit, and signals it. An error that is already active stays so: its new
   * occurrence is lost (7.5).
   */
  activate(error: number): void {
    if ((this.active & error) !== 0) return;
    this.#page0[GERROR_WORD] ^= error;
    if (this.#trace !== undefined) this.#trace('smmuv3_write_gerror', error, this.#page0[GERROR_WORD]);
    // 7.5.1: an aborted GERROR MSI does not try to signal itself.
    if (error === GERROR.MSI_GERROR_ABT_ERR.inPlace) return;
    if ((this.#page0[IRQ_CTRL_WORD] & GERROR_IRQEN) === 0) return;
    this.#send('gerror', OFFSET.GERROR_IRQ_CFG0, GERROR.MSI_GERROR_ABT_ERR.inPlace);
  }

  /** Signals again the errors that are active, in case a signal got lost. */
  resignal(): void {
    if (this.active === 0 || (this.#page0[IRQ_CTRL_WORD] & GERROR_IRQEN) === 0) return;
    this.#send('gerror', OFFSET.GERROR_IRQ_CFG0, GERROR.MSI_GERROR_ABT_ERR.inPlace);
  }

  /** The event queue became non-empty. */
  eventq(): void {
    if ((this.#page0[IRQ_CTRL_WORD] & EVENTQ_IRQEN) === 0) return;
    this.#send('eventq', OFFSET.EVENTQ_IRQ_CFG0, GERROR.MSI_EVENTQ_ABT_ERR.inPlace);
  }

  /** The PRI queue became non-empty, or got the last request of a group (6.3.36 LO). */
  priq(): void {
    if ((this.#page0[IRQ_CTRL_WORD] & PRIQ_IRQEN) === 0) return;
    this.#send('priq', OFFSET.PRIQ_IRQ_CFG0, GERROR.MSI_PRIQ_ABT_ERR.inPlace);
  }

  /** A CMD_SYNC with CS=IRQ completed; no bit of IRQ_CTRL gates this (6.3.16). The address is the command's own. */
  sync(hi: number, lo: number, data: number): void {
    // 4.7.3: the wired output is pulsed whatever the address; the MSI is sent as well if there is one.
    this.#wire('sync');
    this.#message(hi, lo, data, GERROR.MSI_CMDQ_ABT_ERR.inPlace);
  }

  #send(line: 'eventq' | 'priq' | 'gerror', cfg0: number, abortError: number): void {
    const at = wordOf(cfg0);
    const hi = IRQ_CFG0.ADDR.getHi(this.#page0, at);
    const lo = IRQ_CFG0.ADDR.getLo(this.#page0, at);
    const data = this.#page0[at + 2];
    this.#wire(line);
    this.#message(hi, lo, data, abortError);
  }

  #wire(line: keyof typeof TRACE_IRQ): void {
    if (this.#trace !== undefined) this.#trace('smmuv3_trigger_irq', TRACE_IRQ[line]);
    this.#port.raise(line);
  }

  #message(hi: number, lo: number, data: number, abortError: number): void {
    // 6.3.21: the test for "no MSI" is on the whole field; only then is the address truncated to OAS.
    if (!this.#msi || (hi === 0 && lo === 0)) return;
    if (!this.#port.writeMsi((hi & this.#addressMaskHi) >>> 0, lo, data)) this.activate(abortError);
  }
}
