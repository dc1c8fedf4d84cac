/**
 * The QEMUs that tests run side by side: 7.2, which is the machine's own on Debian 12, and those
 * that `npm run qemus` brings.
 *
 *     const matrixTest = requireOrSkip(needQemuVersion("11.1"), needUserfaultfd());
 *     await using qemu = await startQemu({ program: qemuProgram("11.1"), machine: machineOf("7.2") });
 */
import { existsSync } from "node:fs";

import { BROUGHT_VERSIONS, broughtQemu } from "../../scripts/qemus.ts";
import type { BroughtVersion } from "../../scripts/qemus.ts";
import type { Need } from "./need.ts";
import { findQemu } from "./qemu.ts";
import type { QemuProgram } from "./qemu.ts";

/** The version of the machine's own QEMU that tests expect, that of Debian 12. */
const OWN_VERSION = "7.2";

export type QemuVersion = typeof OWN_VERSION | BroughtVersion;
export const QEMU_VERSIONS: readonly QemuVersion[] = [OWN_VERSION, ...BROUGHT_VERSIONS];

/** The executable of a version, whether it is there or not. */
export function qemuPath(version: QemuVersion): string {
  return version === OWN_VERSION ? "qemu-system-x86_64" : broughtQemu(version);
}

/** How `startQemu` starts a version. */
export function qemuProgram(version: QemuVersion): QemuProgram {
  return { command: [qemuPath(version)] };
}

/**
 * The machine type that came with a version; later versions have it too. Both ends of a migration
 * between two versions need the one of the older.
 */
export function machineOf(version: QemuVersion): string {
  return `pc-i440fx-${version}`;
}

/** The machine's own QEMU is of the version that tests expect. */
function ownVersionIsThere(): boolean {
  const path = findQemu();
  if (path === null) return false;
  const said = Bun.spawnSync([path, "--version"]).stdout.toString();
  return said.startsWith(`QEMU emulator version ${OWN_VERSION}.`);
}

/** QEMU of one version, for `requireOrSkip`. */
export function needQemuVersion(version: QemuVersion): Need {
  const what = `QEMU ${version}`;
  if (version === OWN_VERSION) {
    const hint = "run the tests on Debian 12, with the package qemu-system-x86";
    return { what, missing: ownVersionIsThere() ? undefined : hint };
  }
  return { what, missing: existsSync(broughtQemu(version)) ? undefined : "run: npm run qemus" };
}
