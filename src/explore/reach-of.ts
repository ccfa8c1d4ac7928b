/** Where a read went, by the mark that every frame begins with. */

import { BARE_FRAMES, frameMark, IDENTITY_FRAME } from '../guest/bare-guest.ts';

/** Which frame the bytes come from. */
export function reachOf(bytes: Uint8Array): number | undefined {
  const mark = new DataView(bytes.buffer).getUint32(0, true);
  for (let frame = 0; frame < BARE_FRAMES; frame++) if (mark === frameMark(frame)) return frame;
  return mark === frameMark(IDENTITY_FRAME) ? IDENTITY_FRAME : undefined;
}
