/** What a probe of `check` is, and what it finds. */
import type { Facts } from "./facts.ts";

export type Role = "source" | "dest";
export type ProbeState = "ok" | "limited" | "missing";

/** What a probe found. */
export interface ProbeResult {
  state: ProbeState;
  /** What there is, or what lacks and which consequence that has. */
  detail: string;
  /** A command or step that would mend it. */
  fix?: string;
}

/** What a probe is for. Only a required probe that is missing keeps a role from running. */
export type ProbeGroup = "required" | "recommended" | "optional";

export interface Probe {
  name: string;
  group: ProbeGroup;
  roles: readonly Role[];
  run: (facts: Facts) => ProbeResult;
}
