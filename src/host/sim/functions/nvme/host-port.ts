/** The controller's way out: DMA that obeys Bus Master Enable, and interrupts by MSI or by pin. */

import { OUTCOME, type Outcome } from '../../../../smmu/transaction.ts';
import type { PciBus } from '../../pci-function.ts';
import type { ConfigSpace } from '../config-space.ts';

export class HostPort {
  readonly #config: ConfigSpace;
  #bus: PciBus | undefined;

  constructor(config: ConfigSpace) {
    this.#config = config;
  }

  connect(bus: PciBus): void {
    this.#bus = bus;
  }

  /** As {@link PciBus.read}; a function that is not a bus master gets an abort. */
  read(hi: number, lo: number, into: Uint8Array): Outcome {
    const bus = this.#bus;
    return bus !== undefined && this.#config.busMaster ? bus.read(hi, lo, into) : OUTCOME.Abort;
  }

  /** As {@link PciBus.write}, likewise. */
  write(hi: number, lo: number, from: Uint8Array): Outcome {
    const bus = this.#bus;
    return bus !== undefined && this.#config.busMaster ? bus.write(hi, lo, from) : OUTCOME.Abort;
  }

  /** A transfer that the controller's registers have no say in. */
  rogue(write: boolean, hi: number, lo: number, bytes: Uint8Array): Outcome {
    const bus = this.#bus;
    if (bus === undefined) return OUTCOME.Abort;
    return write ? bus.write(hi, lo, bytes) : bus.read(hi, lo, bytes);
  }

  /** Sends the message of a vector if MSI is enabled; messages are writes and need Bus Master Enable. */
  message(vector: number): void {
    const config = this.#config;
    if (config.msiEnabled && config.busMaster)
      // Software may give fewer vectors than we asked for: the highest ones then share.
      this.#bus?.interrupt('msi', vector & (config.msiVectors - 1));
  }

  /**
   * Drives the interrupt pin. `news` says that something was added while the pin is asserted: VFIO's INTx is
   * automasked, so another signal does no harm and none is lost by one that came too early.
   */
  pin(asserted: boolean, news: boolean): void {
    const config = this.#config;
    const level = asserted && !config.msiEnabled;
    const rises = level && (news || !config.interruptPending);
    config.interruptPending = level;
    if (rises && !config.intxDisabled) this.#bus?.interrupt('intx', 0);
  }
}
