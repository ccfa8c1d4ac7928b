/** `--smmu accel=on,ril=auto,...`: properties as QEMU's `-device arm-smmuv3` takes them. */

import * as v from 'valibot';
import type { SmmuProperties } from '../../accel/properties.ts';
import { SMMU_PROPERTIES } from '../../machine/scenario/steps.ts';
import { UsageError } from '../exit.ts';

/** @throws UsageError naming the property. */
export function parseSmmuProperties(text: string): SmmuProperties {
  const given: Record<string, string | bigint> = {};
  for (const part of text.split(',')) {
    const match = /^([a-z]+)=(\w+)$/.exec(part);
    if (match === null) throw new UsageError(`--smmu takes name=value,name=value, not "${part}".`);
    given[match[1]] = /^\d+$/.test(match[2]) ? BigInt(match[2]) : match[2];
  }
  const result = v.safeParse(SMMU_PROPERTIES, given);
  if (!result.success) {
    const [issue] = result.issues;
    const name = v.getDotPath(issue) ?? '';
    throw new UsageError(
      issue.expected === 'never'
        ? `--smmu has no property "${name}"; there are accel, ril, ats, oas, ssidsize, stall and pri.`
        : `--smmu ${name}: ${issue.message}.`,
    );
  }
  const { accel: _, ...properties } = result.output;
  return properties;
}
