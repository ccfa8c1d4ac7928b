/** What a host says of an invalidation that it refused. */

import { IOMMU_HWPT_INVALIDATE } from '../iommufd/uapi/iommufd.ts';

/**
 * Says that the last command was the bad one, as Linux does after it has looked at all of them: those before it were
 * not carried out either, for they wait for the end of the batch.
 */
export function blameLast(arg: Uint8Array): void {
  const count = IOMMU_HWPT_INVALIDATE.get(arg, 'entry_num');
  IOMMU_HWPT_INVALIDATE.set(arg, 'entry_num', Math.max(count - 1, 0));
}
