import { describe, expect, test } from "bun:test";
import { gatherFacts } from "../../../src/check/facts.ts";
import { canRun, PROBE_NAMES, runProbes } from "../../../src/check/verdict.ts";
import { eventsSchema } from "../../../src/report/events.ts";
import { postcopyCommand, run } from "../../helpers/spawn.ts";

const outcomes = runProbes(await gatherFacts());
const allRoles = canRun("source", outcomes) && canRun("dest", outcomes);

describe("postcopy check", () => {
  test("--json has an event a probe, and one for the roles", async () => {
    const { stdout, exitCode } = await run(postcopyCommand("check", "--json", "--quiet"));
    const events = stdout
      .trimEnd()
      .split("\n")
      .map((line) => eventsSchema.parse(JSON.parse(line)));
    const names = events.flatMap((event) => (event.event === "probe" ? [event.name] : []));
    expect(names).toEqual([...PROBE_NAMES]);
    expect(events.at(-1)).toMatchObject({
      event: "check",
      source: canRun("source", outcomes),
      dest: canRun("dest", outcomes),
    });
    expect(exitCode).toBe(allRoles ? 0 : 3);
  });

  test("says the same to people on standard error", async () => {
    const { stdout, stderr } = await run(postcopyCommand("check"));
    expect(stdout).toBe("");
    for (const name of PROBE_NAMES) expect(stderr).toContain(`  ${name} `);
    expect(stderr).toMatch(/\nRoles\n {2}source .*\n {2}dest .*\n$/);
  });

  test("NAME runs one probe, whose state is the exit code", async () => {
    for (const name of ["kernel", "sysctl"]) {
      const { stderr, exitCode } = await run(postcopyCommand("check", name));
      const found = outcomes.find((outcome) => outcome.name === name);
      expect(stderr).toContain(`${found?.state} `);
      expect(stderr).not.toContain("Roles");
      expect(exitCode).toBe(found?.state === "missing" ? 3 : 0);
    }
  });

  test("a name that is none is a usage error with a suggestion", async () => {
    const { stderr, exitCode } = await run(postcopyCommand("check", "pagemapscan"));
    expect(exitCode).toBe(2);
    expect(stderr).toEndWith("  hint: did you mean pagemap-scan?\n");
  });
});

test("the facts of this host are those of /proc", async () => {
  const facts = await gatherFacts();
  expect(facts.pageSize).toBe(4096);
  expect(facts.cores).toBeGreaterThan(0);
  expect(facts.kernel?.userfault["system call"]).not.toBe("ENOENT");
  const limits = await Bun.file("/proc/self/limits").text();
  const unlimited = /Max locked memory +unlimited/.test(limits);
  expect(facts.memlockBytes === Infinity).toBe(unlimited);
});
