import { describe, expect, it } from 'vitest';
import { tlbiAsid } from '../../src/guest/commands.ts';
import { OPCODE } from '../../src/spec/commands.ts';
import { OFFSET } from '../../src/spec/registers.ts';
import { bench, type Bench, RECORDED_IDS } from './scripted-smmu.ts';

const some = (n: number): Uint32Array[] =>
  Array.from({ length: n }, (_, i) => tlbiAsid(OPCODE.CMD_TLBI_NH_ASID, i));

/** Probed with a queue of 128 commands, four of which are used. */
function probed(ids = {}): Bench {
  const made = bench(ids);
  made.guest.probe({ cmdqLog2: 7, eventqLog2: 4 });
  made.smmu.takeOpcodes();
  made.smmu.accesses = [];
  return made;
}

describe('the command queue', () => {
  it('waits for room, and gives up when there is none', () => {
    const { guest, smmu } = probed();
    smmu.onWrite = (offset, value) => {
      smmu.values.set(offset, value);
      return offset === OFFSET.CMDQ_PROD;
    };
    guest.commands.issue(...some(128));
    expect(() => guest.commands.issue(...some(1))).toThrow(
      expect.objectContaining({ code: 'GUEST_CMDQ_TIMEOUT' }),
    );
    expect(guest.warnings).toEqual(['CMDQ timeout']);
    smmu.consume();
    guest.commands.issue(...some(1));
    expect(guest.warnings).toHaveLength(1);
  });

  it('goes on when room appears while it polls', () => {
    const { guest, smmu } = probed();
    let polls = 0;
    smmu.onWrite = (offset, value) => {
      smmu.values.set(offset, value);
      return offset === OFFSET.CMDQ_PROD;
    };
    smmu.onRead = (offset) => {
      if (offset === OFFSET.CMDQ_CONS && ++polls % 3 === 0) smmu.consume();
      return undefined;
    };
    guest.commands.issueAndSync(...some(300));
    expect(smmu.commands).toHaveLength(301);
    expect(guest.warnings).toEqual([]);
  });

  it('survives many rounds of its ring', () => {
    const { guest, smmu } = probed();
    for (let i = 0; i < 1000; i++) guest.commands.issueAndSync(...some(1 + (i % 40)));
    const asids = smmu.commands.filter((words) => (words[0] & 0xff) === 0x11);
    expect(asids).toHaveLength(Array.from({ length: 1000 }, (_, i) => 1 + (i % 40)).reduce((a, b) => a + b));
    expect(guest.warnings).toEqual([]);
  });

  it('has several CMD_SYNCs in flight when many append at once', () => {
    const { guest, smmu } = probed();
    guest.commands.issueTogether([some(2), some(0), some(3)]);
    expect(smmu.accesses.filter((access) => access.startsWith('w'))).toEqual(['w 0x98=0xc']);
    expect(smmu.takeOpcodes().filter((name) => name === 'SYNC')).toHaveLength(3);
  });

  it('does not believe a CONS that is not between the last one and PROD', () => {
    const { guest, smmu } = probed();
    smmu.onRead = (offset) => (offset === OFFSET.CMDQ_CONS ? 0x50 : undefined);
    expect(() => guest.commands.issueAndSync(...some(1))).toThrow(
      expect.objectContaining({ code: 'GUEST_SYNC_TIMEOUT' }),
    );
    expect(guest.warnings[0]).toBe('CMDQ_CONS went from 0x4 to 0x50 with PROD at 0x6');
  });

  it('does not take an error code in CONS for its index', () => {
    const { guest, smmu } = probed();
    smmu.onRead = (offset) =>
      offset === OFFSET.CMDQ_CONS ? (smmu.values.get(offset)! | 0x0100_0000) >>> 0 : undefined;
    guest.commands.issueAndSync(...some(1));
    expect(guest.warnings).toEqual([]);
  });
});

describe('CMD_SYNC by a message', () => {
  const MSI = { IDR0: (RECORDED_IDS.IDR0 | (1 << 13)) >>> 0 };

  it('is complete when its own slot reads 0, and CONS is not looked at', () => {
    const { guest, smmu } = probed(MSI);
    for (let i = 0; i < 200; i++) guest.commands.issueAndSync(...some(3));
    expect(smmu.accesses.every((access) => access.startsWith('w 0x98'))).toBe(true);
    expect(guest.warnings).toEqual([]);
  });

  it('that is never written times out', () => {
    const { guest, smmu } = probed(MSI);
    smmu.onWrite = (offset) => offset === OFFSET.CMDQ_PROD;
    expect(() => guest.commands.issueAndSync()).toThrow(
      expect.objectContaining({ code: 'GUEST_SYNC_TIMEOUT' }),
    );
  });

  it('is not used if memory polling is switched off', () => {
    const made = bench(MSI, { msiPolling: false });
    made.guest.probe();
    expect(made.smmu.commands[1][0]).toBe(0x0fc0_2046);
  });
});
