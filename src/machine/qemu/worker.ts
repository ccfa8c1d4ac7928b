/** Entry of the thread that owns a {@link QemuMachine}. */

import { workerData } from 'node:worker_threads';
import { CommandServer, type Handlers } from '../../qemu/command-channel.ts';
import { loadSyscalls } from '../../sys/koffi-syscalls.ts';
import type { WorkerCalls, WorkerEvent, WorkerStart } from './protocol.ts';
import { QemuMachine } from './qemu-machine.ts';

const start = workerData as WorkerStart;
const sys = await loadSyscalls();
const machine: QemuMachine = new QemuMachine({ sys, start, report: (event) => server.emit(event) });
const handlers: WorkerCalls = {
  plug: (argument) => machine.plug(argument),
  unplug: (name) => machine.unplug(name),
  dma: (argument) => machine.dma(argument),
  snapshot: () => machine.snapshot(),
  observe: () => machine.observe(),
  stop: () => machine.close(),
};
const server = new CommandServer<Handlers, WorkerEvent>(sys, machine.loop, start.port, start.wakeFd, {
  ...handlers,
});
machine.loop.run();
server.close();
