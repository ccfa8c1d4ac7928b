/** The physical STEs that stand behind attachments. Bit positions are those of the Linux driver's masks. */

import { describe, expect, it } from 'vitest';
import { LAB_SMMU, SERVER_SMMU } from '../../../src/host/sim/profiles.ts';
import type { IdRegisters } from '../../../src/smmu/identification.ts';
import { GUEST, STE } from '../../contract/guest.ts';
import { nestedVm } from '../../contract/vm.ts';
import { machine, SID_A, simRig } from './machine.ts';

function running(ids: IdRegisters, ats = false) {
  const simulated = machine({ ids, device: { ats } });
  const setup = nestedVm(simRig(simulated), 'none');
  /** The four 64-bit words that say anything. */
  const ste = (): bigint[] => {
    const words = new Uint32Array(16);
    expect(simulated.smmu.model.lookupSte(SID_A, words)).toBe(0);
    return Array.from({ length: 4 }, (_, i) => (BigInt(words[2 * i + 1]) << 32n) | BigInt(words[2 * i]));
  };
  const attachNested = (words: readonly bigint[]): bigint[] => {
    const { vm, a, viommu } = setup;
    expect(vm.attach(a, vm.nested(viommu, a.id, words))).toBe('OK');
    return ste();
  };
  return { ...simulated, ...setup, ste, attachNested };
}

const field = (word: bigint, hi: number, lo: number): bigint =>
  (word >> BigInt(lo)) & ((1n << BigInt(hi - lo + 1)) - 1n);
const config = (ste: readonly bigint[]): bigint => field(ste[0], 3, 1);
const eats = (ste: readonly bigint[]): bigint => field(ste[1], 29, 28);

describe('the physical STE', () => {
  it('of a device that is not attached, of V=0 and of abort is V, Config=0 and nothing else', () => {
    const { ste, attachNested, vm, a } = running(LAB_SMMU);
    const abort = [1n, 0n, 0n, 0n];
    expect(ste()).toEqual(abort);
    expect(attachNested([0xffff_ffff_ffff_fffen, 0n])).toEqual(abort);
    expect(attachNested(STE.Abort)).toEqual(abort);
    vm.detach(a);
    expect(ste()).toEqual(abort);
  });

  it('of a nest parent has stage 2 as wide as the SMMU’s output', () => {
    const { vm, a, parent, ste } = running(LAB_SMMU);
    vm.attach(a, parent);
    const [word0, word1, word2, word3] = ste();
    expect([field(word0, 0, 0), config([word0])]).toEqual([1n, 6n]);
    // SHCFG = use incoming; nothing else.
    expect(word1).toBe(1n << 44n);
    expect(field(word2, 15, 0)).toBeGreaterThan(0n);
    // T0SZ 20, SL0 2 (level 0), IR and OR write-back, SH inner, 4 KiB, PS 44 bits, AA64, PTW, R.
    expect(word2 >> 32n).toBe(
      20n |
        (2n << 6n) |
        (1n << 8n) |
        (1n << 10n) |
        (3n << 12n) |
        (4n << 16n) |
        (1n << 19n) |
        (1n << 22n) |
        (1n << 26n),
    );
    expect(word3 & 0xfffn).toBe(0n);
  });

  it('of a nest parent of an SMMU with forced write-back says so', () => {
    const { vm, a, parent, ste } = running(SERVER_SMMU);
    vm.attach(a, parent);
    const [, word1, word2] = ste();
    expect(field(word1, 25, 25)).toBe(1n);
    // T0SZ 16, PS 48 bits.
    expect([field(word2, 37, 32), field(word2, 50, 48)]).toEqual([16n, 5n]);
  });

  it('of a bypassing guest is the parent’s', () => {
    const { vm, a, parent, ste, attachNested } = running(LAB_SMMU);
    vm.attach(a, parent);
    const plain = ste();
    expect(attachNested(STE.Bypass)).toEqual(plain);
  });

  it('of a translating guest has the guest’s words over the parent’s, Config=7, MEV=1 and STRW=0', () => {
    const { vm, a, parent, ste, attachNested } = running(LAB_SMMU);
    vm.attach(a, parent);
    const [, parent1, parent2, parent3] = ste();
    const [word0, word1, word2, word3] = attachNested(STE.S1);
    expect(word0).toBe((STE.S1[0] & ~0xen) | (7n << 1n));
    expect(word1).toBe(parent1 | STE.S1[1] | (1n << 19n));
    expect([word2, word3]).toEqual([parent2, parent3]);
    expect(field(word0, 51, 6) << 6n).toBe(BigInt(GUEST.Cd));
  });

  it('uses ATS only if the device can, and for a translating guest only if the guest wants', () => {
    const guestAts = [STE.S1[0], STE.S1[1] | (1n << 28n)];
    const without = running(SERVER_SMMU);
    expect(eats(without.attachNested(guestAts))).toBe(0n);
    expect(eats(without.attachNested(STE.Bypass))).toBe(0n);
    const server = running(SERVER_SMMU, true);
    expect(eats(server.attachNested(guestAts))).toBe(1n);
    expect(eats(server.attachNested(STE.S1))).toBe(0n);
    expect(eats(server.attachNested(STE.Bypass))).toBe(1n);
    server.vm.attach(server.a, server.parent);
    expect(eats(server.ste())).toBe(1n);
    const lab = running(LAB_SMMU, true);
    expect(eats(lab.attachNested(guestAts))).toBe(0n);
  });

  it('stands in a linear table if the SMMU has no other', () => {
    const ids = { ...LAB_SMMU, IDR0: LAB_SMMU.IDR0 & ~(3 << 27), IDR1: (LAB_SMMU.IDR1 & ~0x3f) | 6 };
    const { vm, a, b, parent, ste, host, smmu } = running(ids);
    expect(ste()).toEqual([1n, 0n, 0n, 0n]);
    vm.attach(a, parent);
    expect(config(ste())).toBe(6n);
    expect(vm.dmaLands(a, BigInt(GUEST.D0))).toBe('D0');
    expect(b.dmaWrite32(BigInt(GUEST.D0), 1)).not.toBe(0);
    expect(host.dmesg).toEqual([]);
    expect([smmu.canHold(0x3f), smmu.canHold(0x40)]).toEqual([true, false]);
  });

  it('of a page table of the host’s own is stage 1', () => {
    const { vm, a, ioas, ste } = running(LAB_SMMU);
    vm.attach(a, ioas);
    expect(config(ste())).toBe(5n);
  });

  it('of each nest parent has a VMID of its own, and each gets one back', () => {
    const { vm, a, ioas, ste } = running(LAB_SMMU);
    const vmids: bigint[] = [];
    for (let i = 0; i < 3; i++) {
      const parent = vm.hwpt(a.id, ioas, 1);
      vm.attach(a, parent);
      vmids.push(field(ste()[2], 15, 0));
      vm.detach(a);
      if (i === 1) vm.destroy(parent);
    }
    expect(vmids[0]).not.toBe(vmids[1]);
    expect(vmids[2]).toBe(vmids[1]);
  });
});
