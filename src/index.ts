/**
 * vsmmu as a library: the device, the contract with a Linux host and its embedded implementation, the accelerator, the
 * reference guest, and what puts them together. All of it runs in a browser page too, but `machine/` and the real host.
 */

export {
  Memory,
  TearFreeMemory,
  MEM_ABORT,
  MEM_OK,
  type MemStatus,
  type Mmio,
  type Region,
} from './memory/memory.ts';

export { Smmu, type SmmuOptions } from './smmu/smmu.ts';
export * from './smmu/identification.ts';
export * from './smmu/page-request.ts';
export * from './smmu/ports.ts';
export * from './smmu/transaction.ts';

export type { Errno, Fd, Kernel, UserMemory, Watch } from './iommufd/kernel.ts';
export { Caller, type Call } from './iommufd/call.ts';
export { HostError } from './iommufd/errors.ts';
export type { FaultKind, HostInfo } from './iommufd/host-info.ts';
export * as uapi from './iommufd/uapi.ts';

export { Accelerator, type AcceleratorOptions, type AcceleratorState } from './accel/accelerator.ts';
export { AddressSpace } from './accel/address-space.ts';
export type { ReconcileReport } from './accel/report.ts';

export { SimHost, type SimHostOptions } from './host/sim/sim-host.ts';
export { DmaTester } from './host/sim/functions/dma-tester.ts';
export { NvmeFunction } from './host/sim/functions/nvme.ts';
export { LAB_SMMU, PRI_SMMU, SERVER_SMMU } from './host/sim/profiles.ts';
export type { PciBus, PciFunction } from './host/sim/pci-function.ts';

export { LinuxKernel, type LinuxKernelOptions, type WatchReadable } from './host/linux/linux-kernel.ts';
export { loadSyscalls } from './sys/koffi-syscalls.ts';
export type { Syscalls } from './sys/syscalls.ts';

export { ReferenceGuest, type ReferenceGuestOptions } from './guest/reference-guest.ts';

export { Machine, type MachineOptions } from './machine/machine.ts';
export { Scheduler } from './machine/scheduler.ts';
export { parseScenario, ScenarioError, type Scenario } from './machine/scenario/parse.ts';
export { runReferenceScenario } from './machine/scenario/reference-run.ts';
export type { RunEvent, Reporter } from './machine/report.ts';

export { runVectors, type ConformanceReport } from './conformance/run-vectors.ts';
export { explainRecord, explainText } from './explain/text.ts';
export { formatExplanation, formatText } from './explain/format.ts';
export { explainWalk } from './explain/walk/explain-walk.ts';
export { formatWalk } from './explain/walk/format-walk.ts';
export { ImageError, machineOfImage } from './explain/walk/machine-image.ts';
export type { WalkCause, WalkExplanation, WalkStep } from './explain/walk/walk.ts';
