import type { QemuProgram } from '../../src/qemu/program.ts';
import { QemuError } from '../../src/qemu/errors.ts';
import { QemuProcess } from '../../src/qemu/qemu-process.ts';
import { Qmp } from '../../src/qemu/qmp.ts';
import { Qtest } from '../../src/qemu/qtest.ts';
import { RunFolder } from '../../src/qemu/run-folder.ts';
import { SocketListener } from '../../src/qemu/socket-listener.ts';
import { endpointArguments } from './endpoints.ts';
import type { CaseResult, OracleCase } from './oracle-case.ts';
import { CaseRun, PAGE } from './qemu-case.ts';
import { Script } from './qtest-script.ts';

/** Cases after which QEMU is started anew: RAM that a case touched stays in use. */
const RESTART_AFTER = 1000;

/** One QEMU with qtest instead of CPUs. */
interface Instance {
  process: QemuProcess;
  qtest: Qtest;
  qmp: Qmp;
}

/** Runs cases on QEMU's SMMUv3: `-M virt,iommu=smmuv3`, PCI functions that do DMA, no CPU. */
export class QemuOracle {
  readonly #program: QemuProgram;
  readonly #folder = new RunFolder();
  #instance: Instance | undefined;
  #starts = 0;
  #cases = 0;
  /** Pages of RAM that are not zero. */
  readonly #dirty = new Set<number>();

  constructor(program: QemuProgram) {
    this.#program = program;
  }

  /** Ends QEMU. */
  async close(): Promise<void> {
    await this.#instance?.process.kill();
    this.#instance = undefined;
    this.#folder.remove();
  }

  async #start(): Promise<Instance> {
    this.#starts += 1;
    const paths = ['qtest', 'qmp'].map((name) => this.#folder.socket(`${name}${this.#starts}`));
    const [qtestListener, qmpListener] = await Promise.all(
      paths.map(async (path) => SocketListener.listen(path)),
    );
    const chardev = (id: string, path: string): string[] => [
      '-chardev',
      `socket,id=${id},path=${path.replaceAll(',', ',,')}`,
    ];
    const pairs = [
      ['-M', 'virt,iommu=smmuv3,memory-backend=ram'],
      ['-accel', 'qtest'],
      ['-m', '6G'],
      // Of anonymous memory QEMU would have huge pages, and clear one for each page that a case touches.
      ['-object', 'memory-backend-memfd,id=ram,size=6G,share=on'],
      ['-display', 'none'],
      ['-monitor', 'none'],
      [...chardev('qtest', paths[0]), '-qtest', 'chardev:qtest'],
      ['-qtest-log', '/dev/null'],
      [...chardev('qmp', paths[1]), '-mon', 'chardev=qmp,mode=control'],
    ];
    const process = new QemuProcess(this.#program, [
      ...pairs.flat(),
      '-nodefaults',
      '-no-user-config',
      ...endpointArguments(),
    ]);
    const ended = async (): Promise<never> => {
      throw await process.endReason();
    };
    try {
      const [qtestSocket, qmpSocket] = await Promise.race([
        Promise.all([qtestListener.connection, qmpListener.connection]),
        ended(),
      ]);
      const qmp = new Qmp(qmpSocket);
      const qtest = new Qtest(qtestSocket);
      await Promise.race([qmp.negotiate(), ended()]);
      this.#dirty.clear();
      return { process, qtest, qmp };
    } catch (error) {
      qtestListener.close();
      qmpListener.close();
      await process.kill();
      throw error;
    }
  }

  /**
   * Runs a case from reset, with all of RAM zero but what the case puts there.
   * @returns what it gave. If QEMU ends over it, that is said in the result, and the next case gets another QEMU.
   * @throws {QemuError} if QEMU cannot be started or does not answer.
   */
  async run(given: OracleCase): Promise<CaseResult> {
    this.#cases += 1;
    if (this.#cases % RESTART_AFTER === 0) {
      await this.#instance?.process.kill();
      this.#instance = undefined;
    }
    this.#instance ??= await this.#start();
    const { process, qtest, qmp } = this.#instance;
    try {
      await this.#reset(qtest, qmp);
      return await new CaseRun(given, new Script(qtest), this.#dirty).run();
    } catch (error) {
      if (!(error instanceof QemuError) || error.code !== 'CLOSED') throw error;
      this.#instance = undefined;
      const { message } = await process.endReason();
      return { out: given.steps.map(() => null), final: {}, crashed: message };
    }
  }

  async #reset(qtest: Qtest, qmp: Qmp): Promise<void> {
    const done = qmp.waitForEvent('RESET');
    await Promise.all([qmp.execute('system_reset'), done]);
    const script = new Script(qtest);
    for (const page of this.#dirty) script.add(`memset ${page} ${PAGE} 0`);
    await script.run();
    this.#dirty.clear();
  }
}
