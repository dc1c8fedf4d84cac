/**
 * Brings newer QEMUs beside the one of the machine: 10.0 of Debian 13 and 11.1 of its backports,
 * each with all the libraries that it needs, down to libc. Nothing is installed and no root is
 * needed: the packages are unpacked into .cache/qemu/VERSION/root (or POSTCOPY_QEMUS/VERSION/root,
 * which several checkouts may share), and a wrapper beside them runs the QEMU by its own loader:
 *
 *     bun scripts/qemus.ts
 *     .cache/qemu/11.1/qemu-system-x86_64 --version
 *
 * What is there already stays as it is. A version appears by one rename, when it is whole.
 */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";

import { openApt, runOrFail, unpack } from "./debian-packages.ts";
import type { PrivateApt } from "./debian-packages.ts";

const PROJECT_ROOT = join(import.meta.dir, "..");
const PROGRAM = "qemu-system-x86_64";
const PACKAGE = "qemu-system-x86";

/** The QEMUs that are brought, and the Debian suite that each comes from. */
const SUITES = { "10.0": "trixie", "11.1": "trixie-backports" } as const;
export type BroughtVersion = keyof typeof SUITES;
export const BROUGHT_VERSIONS: readonly BroughtVersion[] = ["10.0", "11.1"];

/** The host's architectures that Debian has these QEMUs for: library directory and loader. */
const HOSTS: Record<string, { libraries: string; loader: string }> = {
  x64: { libraries: "usr/lib/x86_64-linux-gnu", loader: "ld-linux-x86-64.so.2" },
  arm64: { libraries: "usr/lib/aarch64-linux-gnu", loader: "ld-linux-aarch64.so.1" },
};

/** Where the QEMUs lie, one directory a version. */
export function qemusDirectory(
  environment: Record<string, string | undefined> = process.env,
): string {
  return resolve(environment["POSTCOPY_QEMUS"] ?? join(PROJECT_ROOT, ".cache", "qemu"));
}

/** The executable of one version; it is there once the script has run. */
export function broughtQemu(version: BroughtVersion, directory = qemusDirectory()): string {
  return join(directory, version, PROGRAM);
}

/** A shell script that runs the QEMU in the directory `root` beside it, wherever both are. */
export function wrapperScript(architecture: string): string {
  const host = HOSTS[architecture];
  if (host === undefined) throw new Error(`Debian has no ${PACKAGE} for ${architecture}`);
  const { libraries, loader } = host;
  return `#!/bin/sh
# This QEMU is of another Debian than the machine, so it runs by its own loader, with its own
# libraries, modules and firmware.
root=$(dirname -- "$(readlink -f -- "$0")")/root
export QEMU_MODULE_DIR="$root/${libraries}/qemu"
exec "$root/${libraries}/${loader}" --library-path "$root/${libraries}" \\
  "$root/usr/bin/${PROGRAM}" \\
  -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" -L "$root/usr/lib/ipxe/qemu" "$@"
`;
}

/** Unpacks one version below `workshop`, looks that it runs, and moves it to where it belongs. */
async function bring(version: BroughtVersion, apt: PrivateApt, workshop: string): Promise<void> {
  const made = join(workshop, version);
  await unpack(apt.downloadWithDependencies(PACKAGE, SUITES[version]), join(made, "root"));
  const wrapper = join(made, PROGRAM);
  await Bun.write(wrapper, wrapperScript(process.arch));
  chmodSync(wrapper, 0o755);
  const [said = ""] = runOrFail([wrapper, "--version"], workshop).split("\n");
  if (!said.startsWith(`QEMU emulator version ${version}.`)) {
    throw new Error(`${SUITES[version]} no longer has QEMU ${version}: ${said}`);
  }
  const place = join(qemusDirectory(), version);
  // A directory without the wrapper is not ours, or broken.
  rmSync(place, { recursive: true, force: true });
  renameSync(made, place);
  console.log(`${said}\n  ${broughtQemu(version)}`);
}

async function main(): Promise<void> {
  const missing = BROUGHT_VERSIONS.filter((version) => !existsSync(broughtQemu(version)));
  if (missing.length === 0) return;
  const directory = qemusDirectory();
  mkdirSync(directory, { recursive: true });
  const workshop = mkdtempSync(join(directory, "workshop-"));
  try {
    const apt = await openApt(workshop, Object.values(SUITES));
    for (const version of missing) await bring(version, apt, workshop);
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
