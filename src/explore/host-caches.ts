/**
 * What the host's SMMU may have cached of the guest's stage 1, as told by the DMA that was done and by the invalidations
 * that really reached the host. Nothing is judged by it: it tells states apart that look alike and are not.
 */

import { BARE_PAGE } from '../guest/bare-guest.ts';
import {
  CMD_CFGI_CD_ALL,
  CMD_TLBI_NH_ASID,
  CMD_TLBI_NH_VA,
  COMMAND,
  COMMAND_WORDS,
  OPCODE,
} from '../spec/commands.ts';
import type { Reach } from './guest-model.ts';

export class HostCaches {
  /** Frames by ASID. */
  readonly #translations = new Set<string>();
  /** Page tables that a CD named when it was read, by device and place of the CD. */
  readonly #cds = new Map<string, number>();

  /**
   * A device that translates has done DMA.
   * @param space of the CD that it is attached to. @param root that memory says now. @param reach where it went.
   */
  used(device: string, space: number, root: number, reach: Reach): void {
    const key = `${device}@${space}`;
    if (!this.#cds.has(key)) this.#cds.set(key, root);
    if (reach !== 'abort') this.#translations.add(`${space}:${reach}`);
  }

  /** Another STE was installed for a device: its CDs go (4.3.1). */
  installed(device: string): void {
    for (const key of this.#cds.keys()) if (key.startsWith(`${device}@`)) this.#cds.delete(key);
  }

  /**
   * The host has carried out a command of the guest's.
   * @param deviceOf the device with a vDEVICE of this StreamID.
   */
  invalidated(words: Uint32Array, at: number, deviceOf: (vsid: number) => string | undefined): void {
    const space = CMD_TLBI_NH_ASID.ASID.get(words, at) - 1;
    switch (COMMAND.Opcode.get(words, at)) {
      case OPCODE.CMD_TLBI_NSNH_ALL:
      case OPCODE.CMD_TLBI_NH_ALL:
        this.#translations.clear();
        return;
      case OPCODE.CMD_TLBI_NH_ASID:
        this.#drop(space);
        return;
      case OPCODE.CMD_TLBI_NH_VA:
        if (isOfPage(words, at)) this.#drop(space);
        return;
      case OPCODE.CMD_TLBI_NH_VAA:
        if (isOfPage(words, at)) this.#translations.clear();
        return;
      case OPCODE.CMD_CFGI_CD:
      case OPCODE.CMD_CFGI_CD_ALL: {
        const device = deviceOf(CMD_CFGI_CD_ALL.StreamID.get(words, at));
        if (device !== undefined) this.installed(device);
        return;
      }
      default:
    }
  }

  /** With a stage 2 go all translations under it, before its VMID is another's. */
  stage2Gone(): void {
    this.#translations.clear();
  }

  #drop(space: number): void {
    for (const key of this.#translations) if (key.startsWith(`${space}:`)) this.#translations.delete(key);
  }

  /** Everything that the future depends on. */
  get text(): string {
    const cds = [...this.#cds].map((one) => one.join('='));
    return `${[...this.#translations].sort().join()}/${cds.sort().join()}`;
  }
}

/** Names the one page that address spaces map; a range of two pages ends with it. */
function isOfPage(words: Uint32Array, at: number): boolean {
  const first = CMD_TLBI_NH_VA.Address.getLo(words, at) >>> 12;
  const pages = CMD_TLBI_NH_VA.TG.get(words, at) === 0 ? 1 : 2;
  const page = BARE_PAGE >>> 12;
  return first <= page && page < first + pages;
}

export const wordsOf = (bytes: Uint8Array, count: number): Uint32Array =>
  new Uint32Array(bytes.slice(0, count * COMMAND_WORDS * 4).buffer);
