/** Why an accelerated vSMMU will not work, in a form for people and for programs. */

export interface Reason {
  /** Stable, for programs. */
  readonly code: ReasonCode;
  /** One sentence or two. */
  readonly text: string;
  /** What would change it, as commands for a root shell; empty if no command can. */
  readonly commands: readonly string[];
}

export type ReasonCode =
  // The machine
  | 'NOT_ARM64'
  | 'NO_IOMMU'
  | 'NO_SMMUV3'
  | 'OLD_KERNEL'
  | 'KERNEL_WITHOUT_IOMMUFD'
  | 'KERNEL_WITHOUT_NESTING'
  | 'KERNEL_WITHOUT_VFIO_CDEV'
  | 'NO_IOMMUFD_FILE'
  | 'IOMMUFD_REFUSED'
  | 'LOCKED_MEMORY'
  // A device
  | 'NOT_PCI'
  | 'BRIDGE'
  | 'NO_GROUP'
  | 'FIRMWARE_MAPPING'
  | 'GROUP_SHARED'
  | 'NOT_BOUND'
  | 'NO_VFIO_FILE'
  | 'VFIO_REFUSED'
  | 'IN_USE'
  | 'UNSAFE_INTERRUPTS'
  | 'NO_STAGE_1'
  | 'NO_STAGE_2'
  | 'NESTING_ERRATUM'
  | 'NOT_COHERENT'
  | 'STREAM_IDS'
  | 'INCOMPATIBLE'
  | 'HOST_REFUSED'
  // A run
  | 'NO_TEST_DEVICE';

export const reason = (code: ReasonCode, text: string, ...commands: readonly string[]): Reason => ({
  code,
  text,
  commands,
});
