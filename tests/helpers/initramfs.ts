/**
 * The root file system of the Linux guest, as the kernel takes it from `-initrd`: a cpio archive in
 * the "newc" format (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst), with
 * a busybox and a script.
 */

const DIRECTORY_MODE = 0o040755;
const PROGRAM_MODE = 0o100755;
const ALIGNMENT = 4;

/**
 * The guest's whole userland. The first serial port gets consecutive numbers from 0 on, a line
 * each, in bursts with pauses of 20 ms; the second takes commands, a line each, and answers with
 * what the command prints and a line "done STATUS". /data is the tmpfs that commands may fill. The
 * first number is printed when commands are taken.
 */
const INIT = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /data
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o size=95% tmpfs /data
stty -F /dev/ttyS0 raw -echo
exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
(
  i=0
  while :; do
    echo $i
    i=$((i + 1))
    [ $((i % 32)) = 0 ] && usleep 20000
  done
) >/dev/ttyS0 &
while read -r line; do
  eval "$line"
  echo "done $?"
done
`;

/** One member of a "newc" archive: 13 numbers in hexadecimal, the name, what is in it. */
function member(name: string, mode: number, content: Uint8Array, inode: number): Uint8Array[] {
  const nameBytes = name.length + 1;
  const numbers = [inode, mode, 0, 0, 1, 0, content.length, 0, 0, 0, 0, nameBytes, 0];
  const words = numbers.map((number) => number.toString(16).padStart(8, "0"));
  const head = new TextEncoder().encode(`070701${words.join("")}${name}\0`);
  return [head, paddingAfter(head.length), content, paddingAfter(content.length)];
}

function paddingAfter(bytes: number): Uint8Array {
  return new Uint8Array((ALIGNMENT - (bytes % ALIGNMENT)) % ALIGNMENT);
}

/** The archive: `busybox` is the program of that name, for the guest's architecture. */
export function buildInitramfs(busybox: Uint8Array): Uint8Array {
  const nothing = new Uint8Array();
  return Buffer.concat([
    ...member("bin", DIRECTORY_MODE, nothing, 1),
    ...member("bin/busybox", PROGRAM_MODE, busybox, 2),
    ...member("init", PROGRAM_MODE, new TextEncoder().encode(INIT), 3),
    ...member("TRAILER!!!", 0, nothing, 0),
  ]);
}
