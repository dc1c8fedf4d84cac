/**
 * Brings what a Linux guest of the tests is made of: the kernel that Debian makes for clouds, and a
 * busybox that needs no libraries. Nothing is installed and no root is needed: the two files lie in
 * .cache/linux-guest, which appears by one rename, when it is whole.
 *
 *     bun scripts/linux-guest.ts
 */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";

import { openApt, unpack } from "./debian-packages.ts";
import type { PrivateApt } from "./debian-packages.ts";

const CACHE = join(import.meta.dir, "..", ".cache");
const PLACE = join(CACHE, "linux-guest");

/** The kernel, for `-kernel`; it is there once the script has run. */
export const LINUX_KERNEL = join(PLACE, "vmlinuz");
/** A busybox for the guest, which is of x86-64 whatever the host is. */
export const LINUX_BUSYBOX = join(PLACE, "busybox");

/** The Debian that both come from: its Linux 6.1 starts in QEMU 7.2, 10.0 and 11.1. */
const SUITE = "bookworm";
const ARCHITECTURE = "amd64";
/** Depends on the newest kernel, whose package has the version in its name. */
const KERNEL_PACKAGE = "linux-image-cloud-amd64";
const BUSYBOX_PACKAGE = "busybox-static";

/** The package that has the kernel itself, out of what `apt-cache depends` says of the other. */
export function kernelPackageIn(depends: string): string {
  const name = /^ *Depends: (linux-image-\S+)$/m.exec(depends)?.[1];
  if (name === undefined) throw new Error(`${KERNEL_PACKAGE} depends on no kernel:\n${depends}`);
  return name;
}

async function bring(apt: PrivateApt, workshop: string): Promise<string> {
  const kernel = kernelPackageIn(apt.run("apt-cache", "depends", KERNEL_PACKAGE));
  const root = join(workshop, "root");
  await unpack(
    [kernel, BUSYBOX_PACKAGE].flatMap((name) => apt.download(name)),
    root,
  );
  const image = readdirSync(join(root, "boot")).find((name) => name.startsWith("vmlinuz-"));
  if (image === undefined) throw new Error(`${kernel} has no kernel in boot/`);
  const made = join(workshop, "made");
  mkdirSync(made);
  renameSync(join(root, "boot", image), join(made, "vmlinuz"));
  renameSync(join(root, "bin", "busybox"), join(made, "busybox"));
  // A directory without the kernel is not ours, or broken.
  rmSync(PLACE, { recursive: true, force: true });
  renameSync(made, PLACE);
  return image;
}

async function main(): Promise<void> {
  if (existsSync(LINUX_KERNEL)) return;
  mkdirSync(CACHE, { recursive: true });
  const workshop = mkdtempSync(join(CACHE, "linux-guest-"));
  try {
    const apt = await openApt(workshop, [SUITE], ARCHITECTURE);
    console.log(`${await bring(apt, workshop)} and a busybox are in .cache/linux-guest`);
  } finally {
    rmSync(workshop, { recursive: true, force: true });
  }
}

if (import.meta.main) {
  await main().catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : String(error));
    process.exitCode = 1;
  });
}
