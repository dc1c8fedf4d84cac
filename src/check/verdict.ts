/** Runs the probes, and says what follows for the roles. */
import type { Paint } from "../util/terminal.ts";
import type { Facts } from "./facts.ts";
import type { Probe, ProbeResult, Role } from "./probe.ts";
import { PROBES } from "./probes.ts";

/** A probe with what it found. */
export type ProbeOutcome = Omit<Probe, "run"> & ProbeResult;

/** Names for `check NAME`. */
export const PROBE_NAMES: readonly string[] = PROBES.map(({ name }) => name);

/** Runs all probes, or the one of that name. */
export function runProbes(facts: Facts, name?: string): ProbeOutcome[] {
  const chosen: readonly Probe[] = PROBES.filter((probe) => (name ?? probe.name) === probe.name);
  return chosen.map(({ run, ...probe }) => ({ ...probe, ...run(facts) }));
}

/** Whether a role can run: nothing that it requires is missing. */
export function canRun(role: Role, outcomes: readonly ProbeOutcome[]): boolean {
  return outcomes.every(
    ({ group, roles, state }) =>
      group !== "required" || state !== "missing" || !roles.includes(role),
  );
}

/** Width of the longest state. */
const STATE_COLUMNS = 7;

const HEADINGS: Readonly<Record<Probe["group"], string>> = {
  required: "Required",
  recommended: "Recommended",
  optional: "Optional",
};

function stateText({ state, group }: ProbeOutcome, paint: Paint): string {
  const text = state.padEnd(STATE_COLUMNS);
  if (state === "ok") return paint.green(text);
  // What is optional and not there is no cause for alarm.
  if (group === "optional") return paint.dim(text);
  return state === "limited" ? paint.yellow(text) : paint.red(text);
}

function outcomeLines(outcome: ProbeOutcome, width: number, paint: Paint): string[] {
  const { name, detail, fix } = outcome;
  const line = `  ${stateText(outcome, paint)}  ${name.padEnd(width)}  ${detail}`;
  if (fix === undefined) return [line];
  return [line, `  ${" ".repeat(STATE_COLUMNS)}  ${paint.dim("mend:")} ${fix}`];
}

/** The outcomes as people read them, by group; no newline at the end. */
export function renderOutcomes(outcomes: readonly ProbeOutcome[], paint: Paint): string {
  const width = Math.max(...outcomes.map(({ name }) => name.length));
  const lines: string[] = [];
  for (const group of ["required", "recommended", "optional"] as const) {
    const ofGroup = outcomes.filter((outcome) => outcome.group === group);
    if (ofGroup.length === 0) continue;
    if (lines.length > 0) lines.push("");
    lines.push(paint.bold(HEADINGS[group]));
    for (const outcome of ofGroup) lines.push(...outcomeLines(outcome, width, paint));
  }
  return lines.join("\n");
}

/** Which roles can run, as people read it. */
export function renderRoles(outcomes: readonly ProbeOutcome[], paint: Paint): string {
  const role = (name: Role, what: string): string => {
    const verdict = canRun(name, outcomes) ? paint.green("can run") : paint.red("cannot run");
    return `  ${name.padEnd(6)}  ${verdict} here (${what})`;
  };
  return [paint.bold("Roles"), role("source", "sends a guest"), role("dest", "receives one")].join(
    "\n",
  );
}
