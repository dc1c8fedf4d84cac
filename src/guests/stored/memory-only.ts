/**
 * Guests that are memory alone: their VMM restores everything else itself, and only has its memory
 * filled. In the stream they have a machine type of their own, by which every QEMU refuses them, and a
 * package without devices.
 */

/** The machine type of the memory of a Firecracker microVM. */
export const FIRECRACKER_MACHINE = "firecracker";

/** Who takes such a guest, for errors. */
const RECEIVER =
  "it is memory alone, which no QEMU takes; its receivers are: postcopy dest --guest uffd:SOCKET, " +
  "which fills a VMM's memory with it, and --guest snapshot:DIRECTORY, which keeps it";

/** Who takes a guest of this machine type, where that is no QEMU. */
export function receiverOf(machineType: string): string | undefined {
  return isMemoryOnly(machineType) ? RECEIVER : undefined;
}

/** Whether a guest of this machine type is memory alone. */
export function isMemoryOnly(machineType: string): boolean {
  return machineType === FIRECRACKER_MACHINE;
}
