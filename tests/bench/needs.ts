/** What a benchmark needs of the machine. */
import type { Need } from "../helpers/need.ts";
import { needQemuVersion } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { log } from "../../src/util/log.ts";

/** Whether all needs of a contender are met; says what is missing. */
export function isHere(what: string, ...needs: readonly Need[]): boolean {
  const missing = needs.filter((need) => need.missing !== undefined);
  for (const need of missing) log.warn(`${what} is left out: no ${need.what}; ${need.missing}`);
  return missing.length === 0;
}

/** The QEMUs that comparisons are made with, as far as they are here. */
export function peers(what: string): QemuVersion[] {
  return (["7.2", "11.1"] as const).filter((version) =>
    isHere(`${what} with QEMU ${version}`, needQemuVersion(version)),
  );
}
