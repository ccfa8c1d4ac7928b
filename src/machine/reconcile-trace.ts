/** Reconciles, and the calls that they make, in the trace. */

import { callResult, type ReconcileReport } from '../accel/report.ts';
import { callEvent } from '../trace/event-names.ts';
import type { TraceRing, TraceValue } from '../trace/trace-ring.ts';

/** Values that are shown in hexadecimal; all others are ids and counts. */
const ADDRESS = /iova|user_va|uptr|virt_id|length|capabilities/;

/** Enters a reconcile that did something, or could not, and every call that it made. */
export function traceReconcile(ring: TraceRing, { cause, operations, failures }: ReconcileReport): void {
  if (operations.length === 0 && failures.size === 0) return;
  ring.note('vsmmu_reconcile', { cause, 'calls#': operations.length });
  for (const call of operations) {
    const values: Record<string, TraceValue> = {};
    for (const [name, value] of Object.entries({ ...call.given, ...call.returned }))
      values[ADDRESS.test(name) ? name : `${name}#`] =
        typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : String(value);
    if (call.errno !== 0) values['error'] = callResult(call);
    ring.note(callEvent(call.operation), values);
  }
  for (const [concern, error] of failures) ring.note('vsmmu_failure', { concern, message: error.message });
}
