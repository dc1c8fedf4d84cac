/** `postcopy check`: what this host's kernel allows, and how to allow more. */
import { gatherFacts } from "../check/facts.ts";
import { canRun, PROBE_NAMES, renderOutcomes, renderRoles, runProbes } from "../check/verdict.ts";
import { EXIT } from "../util/errors.ts";
import { choiceSchema } from "../util/schemas.ts";
import { stderrTerminal } from "../util/terminal.ts";
import { checkCommon, COMMON_FLAGS, openOutput } from "./common.ts";
import { defineStrictCommand, optionalWord } from "./strict.ts";

export const check = defineStrictCommand({
  name: "check",
  description: "Say what this host's kernel allows, and how to allow more",
  flags: {
    name: optionalWord(choiceSchema(PROBE_NAMES), "Only this probe"),
    ...COMMON_FLAGS,
  },
  example: ["postcopy check", "postcopy check userfaultfd --json"].join("\n"),
  check: checkCommon,
  run: async (options) => {
    const { events } = await openOutput(options);
    const { paint } = stderrTerminal;
    const outcomes = runProbes(await gatherFacts(), options.name);
    for (const { name, group, state, detail, fix = null } of outcomes) {
      events.emit({ event: "probe", name, group, state, detail, fix });
    }
    if (!options.quiet) stderrTerminal.writeLines(renderOutcomes(outcomes, paint));
    if (options.name !== undefined) {
      return outcomes.some(({ state }) => state === "missing") ? EXIT.host : EXIT.ok;
    }
    const roles = { source: canRun("source", outcomes), dest: canRun("dest", outcomes) };
    events.emit({ event: "check", ...roles });
    if (!options.quiet) stderrTerminal.writeLines(`\n${renderRoles(outcomes, paint)}`);
    return roles.source && roles.dest ? EXIT.ok : EXIT.host;
  },
});
