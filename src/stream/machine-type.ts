/**
 * What a versioned machine type ("pc-i440fx-7.2", "pc-q35-10.0", "virt-9.1") says about the stream.
 * QEMU lets a machine of an older type behave on the wire as the release did that it is named after,
 * so it is this name that decides, not the age of the program (hw/core/machine.c, `hw_compat_*`).
 */

/** The release that a machine type is named after; undefined for one that names none. */
export function machineVersion(machine: string): [major: number, minor: number] | undefined {
  const match = /-(\d{1,3})\.(\d{1,3})$/.exec(machine);
  return match === null ? undefined : [Number(match[1]), Number(match[2])];
}

function isAtLeast(machine: string, major: number, minor: number): boolean {
  const version = machineVersion(machine);
  if (version === undefined) return false;
  return version[0] > major || (version[0] === major && version[1] >= minor);
}

/**
 * Whether the preempt channel is opened at once, beside the main one (`x-preempt-pre-7-2`): such a
 * destination reads nothing before it has both. From 8.0 on it is opened at the switchover. A type
 * that names no release counts as old: opened early the channel does no harm.
 */
export function opensPreemptEarly(machine: string): boolean {
  return !isAtLeast(machine, 8, 0);
}

/**
 * Whether every RAM section, rather than a MULTIFD_FLUSH record, ends a round of multifd's channels
 * (`multifd-flush-after-each-section`, up to 8.0).
 */
export function flushesMultifdAfterEachSection(machine: string): boolean {
  return !isAtLeast(machine, 8, 1);
}

/**
 * Whether a source with the capability `switchover-ack` waits for just one SWITCHOVER_ACK, and one
 * without it takes no notice of it: from 8.1 to 11.0, as no QEMU has a machine newer than itself.
 * Older releases end the migration on it; from 11.1 on the source counts its devices that need one,
 * and ends the migration on one too many.
 */
export function takesSwitchoverAck(machine: string): boolean {
  return isAtLeast(machine, 8, 1) && !isAtLeast(machine, 11, 1);
}
