import { EVENT_CLASS } from '../spec/events.ts';

/** What stopped a transaction. One object is reused for all; a walk that returns an EventType has filled it. */
export class Fault {
  /** Stage 2 detected it. */
  s2 = false;
  /** EVENT_CLASS: what the SMMU was doing. */
  cls: number = EVENT_CLASS.IN;
  /** With s2: the address that stage 2 was asked for. */
  ipaHi = 0;
  ipaLo = 0;
  /** Fetch events: the physical address that aborted. */
  fetchHi = 0;
  fetchLo = 0;
  /** F_PERMISSION with CLASS=TT: the refused access was a hardware update of a descriptor (7.3.16 TTRnW=0). */
  descriptorWrite = false;

  stage1(): void {
    this.s2 = false;
    this.cls = EVENT_CLASS.IN;
    this.descriptorWrite = false;
  }

  stage2(cls: number, ipaHi: number, ipaLo: number, descriptorWrite: boolean): void {
    this.s2 = true;
    this.cls = cls;
    this.ipaHi = ipaHi;
    this.ipaLo = ipaLo;
    this.descriptorWrite = descriptorWrite;
  }

  fetch(hi: number, lo: number): void {
    this.fetchHi = hi;
    this.fetchLo = lo;
  }
}
