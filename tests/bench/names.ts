/** What contenders are called, in every benchmark alike, and the figures that several have. */
import { qemuPath } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";

export { OUR_PROGRAM, OURS } from "../../src/bench/names.ts";
export const C = "C";
/** With threads that sleep when they have nothing to do. */
export const C_PARKED = `${C}, parked`;

export function qemuToQemu(version: QemuVersion): string {
  return `QEMU ${version} → QEMU ${version}`;
}

export function oursToQemu(version: QemuVersion): string {
  return `ours → QEMU ${version}`;
}

export function qemuToOurs(version: QemuVersion): string {
  return `QEMU ${version} → ours`;
}

/** What is run, with its version. */
export const C_PROGRAM = "C, tests/bench/c";

/** "QEMU 7.2.19", as the program itself says it. */
export function qemuProgramName(version: QemuVersion): string {
  const said = Bun.spawnSync([qemuPath(version), "--version"]).stdout.toString();
  return `QEMU ${/version (\S+)/.exec(said)?.[1] ?? version}`;
}

export const RATE = { id: "rate", title: "rate", unit: "bytes/s", better: "more" } as const;
export const CPU = { id: "cpu", title: "CPU time", unit: "s/GiB", better: "less" } as const;
