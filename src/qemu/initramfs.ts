import { type CpioEntry, writeCpio } from './cpio.ts';

/** Every line that our init writes to the command channel by itself starts with this. */
export const MARKER = '@vsmmu';

/**
 * The guest's init: mounts, says that it is ready, and then runs one command after the other.
 *
 * On the command channel (ttyAMA1; kernel messages go to ttyAMA0, so they cannot get in between) a request is one line,
 * `ID BASE64`, the script in base64. The answer is `@vsmmu begin ID`, whatever the script prints, and
 * `@vsmmu end ID STATUS` on a line of its own. An end of line goes in front of that, which is not output.
 */
const INIT = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox --install -s
export PATH=/sbin:/bin:/usr/sbin:/usr/bin HOME=/
exec 3<>/dev/ttyAMA1
stty raw -echo <&3
read up rest < /proc/uptime
echo "${MARKER} ready $up $(uname -r)" >&3
while IFS=' ' read -r id script <&3; do
  echo "${MARKER} begin $id" >&3
  echo "$script" | base64 -d > /tmp/command
  sh /tmp/command < /dev/null >&3 2>&1
  status=$?
  printf '\\n${MARKER} end %s %d\\n' "$id" $status >&3
done
poweroff -f
`;

/**
 * An initramfs with busybox and an init, ours unless told; it needs no modules, so the kernel must have built in what the
 * guest is to use (Debian's cloud kernels have NVMe).
 * @param busybox the bytes of a static arm64 busybox.
 * @param more what else is in it; comes last.
 */
export function buildInitramfs(
  busybox: Uint8Array,
  init: Uint8Array | string = INIT,
  more: readonly CpioEntry[] = [],
): Uint8Array {
  const directory = (name: string): CpioEntry => ({ name, kind: 'directory', mode: 0o755 });
  return writeCpio([
    ...['bin', 'sbin', 'usr', 'usr/bin', 'usr/sbin', 'dev', 'proc', 'sys', 'tmp', 'root', 'mnt'].map(
      directory,
    ),
    // The kernel opens these for init before anything is mounted.
    { name: 'dev/console', kind: 'character-device', mode: 0o600, device: { major: 5, minor: 1 } },
    { name: 'dev/null', kind: 'character-device', mode: 0o666, device: { major: 1, minor: 3 } },
    { name: 'bin/busybox', kind: 'file', mode: 0o755, data: busybox },
    { name: 'init', kind: 'file', mode: 0o755, data: init },
    ...more,
  ]);
}
