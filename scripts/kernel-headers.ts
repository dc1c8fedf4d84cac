/**
 * Unpacks the kernel headers of a newer Debian into .cache/kernel-headers, for the test that
 * compares syscalls/abi with them. Debian 12 has those of Linux 6.1, which know neither
 * PAGEMAP_SCAN nor the newer userfaultfd operations. Nothing is installed.
 *
 *     bun scripts/kernel-headers.ts
 */
import { existsSync, mkdirSync, renameSync, rmSync } from "node:fs";
import { basename, join } from "node:path";

import { openApt, unpack } from "./debian-packages.ts";

const PROJECT_ROOT = join(import.meta.dir, "..");
const DOWNLOAD_ROOT = join(PROJECT_ROOT, ".cache", "kernel-headers");

/** The Debian whose headers are taken: Linux 6.12. */
const SUITE = "trixie";
const PACKAGE = "linux-libc-dev";

/** Where the unpacked headers lie once the script has run; a directory for `cc -isystem`. */
export const KERNEL_HEADERS = join(DOWNLOAD_ROOT, "root", "usr", "include");

async function main(): Promise<void> {
  if (existsSync(join(KERNEL_HEADERS, "linux", "userfaultfd.h"))) return;
  rmSync(DOWNLOAD_ROOT, { recursive: true, force: true });
  const workshop = join(DOWNLOAD_ROOT, "apt");
  mkdirSync(workshop, { recursive: true });
  const apt = await openApt(workshop, [SUITE]);
  const files = apt.download(PACKAGE);
  await unpack(files, join(workshop, "root"));
  renameSync(join(workshop, "root"), join(DOWNLOAD_ROOT, "root"));
  rmSync(workshop, { recursive: true });
  console.log(`${files.map((file) => basename(file)).join()} is unpacked in .cache/kernel-headers`);
}

if (import.meta.main) await main();
