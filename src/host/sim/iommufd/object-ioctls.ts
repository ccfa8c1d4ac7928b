/** IOMMU_DESTROY and IOMMU_OPTION. */

import type { Errno } from '../../../iommufd/kernel.ts';
import { ERRNO } from '../../../iommufd/uapi/errno.ts';
import {
  type IOMMU_DESTROY,
  type IOMMU_OPTION,
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
} from '../../../iommufd/uapi/iommufd.ts';
import type { Command } from './context.ts';
import { Ioas } from './ioas.ts';

export function destroyObject({ context, values }: Command<typeof IOMMU_DESTROY.members>): Errno {
  const object = context.objects.get(values.id);
  if (object === undefined) return ERRNO.ENOENT;
  if (object.users > 0) return ERRNO.EBUSY;
  context.objects.destroy(object);
  if (context.vfioIoas === object) context.vfioIoas = undefined;
  return 0;
}

export function setOption(command: Command<typeof IOMMU_OPTION.members>): Errno {
  const { context, values } = command;
  if (values.__reserved !== 0) return ERRNO.EOPNOTSUPP;
  switch (values.option_id) {
    case IOMMU_OPTION_RLIMIT_MODE: {
      if (values.object_id !== 0) return ERRNO.EOPNOTSUPP;
      if (values.op === IOMMU_OPTION_OP_GET) return command.respond({ val64: BigInt(context.rlimitMode) });
      if (values.op !== IOMMU_OPTION_OP_SET) return ERRNO.EOPNOTSUPP;
      if (context.objects.size > 0) return ERRNO.EBUSY;
      if (values.val64 > 1n) return ERRNO.EINVAL;
      context.rlimitMode = Number(values.val64);
      return 0;
    }
    case IOMMU_OPTION_HUGE_PAGES: {
      const ioas = context.find(values.object_id, Ioas);
      if (ioas === undefined) return ERRNO.ENOENT;
      if (values.op === IOMMU_OPTION_OP_GET) return command.respond({ val64: ioas.hugePages ? 1n : 0n });
      if (values.op !== IOMMU_OPTION_OP_SET) return ERRNO.EOPNOTSUPP;
      if (values.val64 > 1n) return ERRNO.EINVAL;
      ioas.hugePages = values.val64 === 1n;
      return 0;
    }
    default:
      return ERRNO.EOPNOTSUPP;
  }
}
