/** The GERROR interrupt (IHI 0070 7.5), handled as Linux does. */

import { hex32 } from '../bits/u64.ts';
import { GERROR, OFFSET } from '../spec/registers.ts';
import type { KernelLog } from './kernel-log.ts';
import type { RegisterPort } from './register-port.ts';

/** The errors that the driver knows. */
const KNOWN = [
  GERROR.CMDQ_ERR,
  GERROR.EVENTQ_ABT_ERR,
  GERROR.PRIQ_ABT_ERR,
  GERROR.MSI_CMDQ_ABT_ERR,
  GERROR.MSI_EVENTQ_ABT_ERR,
  GERROR.MSI_PRIQ_ABT_ERR,
  GERROR.MSI_GERROR_ABT_ERR,
  GERROR.SFM_ERR,
].reduce((mask, field) => mask | field.inPlace, 0);

/** What each error makes it say, in the order of its tests. */
const TEXTS = [
  [GERROR.MSI_GERROR_ABT_ERR, 'GERROR MSI write aborted'],
  [GERROR.MSI_PRIQ_ABT_ERR, 'PRIQ MSI write aborted'],
  [GERROR.MSI_EVENTQ_ABT_ERR, 'EVTQ MSI write aborted'],
  [GERROR.MSI_CMDQ_ABT_ERR, 'CMDQ MSI write aborted'],
  [GERROR.PRIQ_ABT_ERR, 'PRIQ write aborted -- events may have been lost'],
  [GERROR.EVENTQ_ABT_ERR, 'EVTQ write aborted -- events may have been lost'],
] as const;

export interface GlobalErrorActions {
  /** Service failure mode: switches the device off. */
  disable(): void;
  /** Deals with the command that CMDQ_CONS points at. */
  commandError(): void;
}

/** Reads which errors are active, acts, and acknowledges. @returns false if none was. */
export function handleGlobalError(port: RegisterPort, log: KernelLog, actions: GlobalErrorActions): boolean {
  const gerror = port.read(OFFSET.GERROR);
  const gerrorn = port.read(OFFSET.GERRORN);
  const active = (gerror ^ gerrorn) >>> 0;
  if ((active & KNOWN) === 0) return false;
  log.warn(`unexpected global error reported (${hex32(active, 8)}), this could be serious`);
  if (GERROR.SFM_ERR.of(active)) {
    log.warn('device has entered Service Failure Mode!');
    actions.disable();
  }
  for (const [field, text] of TEXTS) if (field.of(active)) log.warn(text);
  if (GERROR.CMDQ_ERR.of(active)) actions.commandError();
  port.write(OFFSET.GERRORN, gerror);
  return true;
}
