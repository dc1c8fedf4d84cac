import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { eventsSchema } from "../../../src/report/events.ts";
import { run } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";
import { sourceReport } from "../report/fixtures/reports.ts";

const FIXTURE = join(import.meta.dir, "fixtures", "program-fixture.ts");

function fixture(...words: string[]) {
  return run([process.execPath, FIXTURE, ...words]);
}

describe("help and version", () => {
  test("--help goes to standard output, without colours in a pipe, and ends with an example", async () => {
    const { stdout, stderr, exitCode } = await fixture("--help");
    expect({ stderr, exitCode }).toEqual({ stderr: "", exitCode: 0 });
    expect(stdout).not.toContain("\u001b");
    expect(stdout).toMatch(/COMMANDS\n\n {2}move {4}Move a guest\n {2}look/);
    expect(stdout).toEndWith("EXAMPLE\n\n  fixture move --guest stress\n");
  });

  test("a command's --help lists its flags, wherever it stands", async () => {
    const { stdout, exitCode } = await fixture("move", "--guest", "--help");
    expect(exitCode).toBe(0);
    for (const part of ["--guest=<GUEST>", "(Required)", "(Default: 1MiB)", "-h, --help"]) {
      expect(stdout).toContain(part);
    }
    expect(stdout).toEndWith("EXAMPLE\n\n  fixture move --guest stress\n");
  });

  test("after -- it is a word like any other", async () => {
    const { stdout, exitCode } = await fixture("look", "--", "--help");
    expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 2 });
  });

  test("--version", async () => {
    const { stdout, exitCode } = await fixture("--version");
    expect({ stdout, exitCode }).toEqual({ stdout: "fixture 1.2.3\n", exitCode: 0 });
  });

  test("no command at all is a usage error that shows the help", async () => {
    const { stdout, stderr, exitCode } = await fixture();
    expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 2 });
    expect(stderr).toContain("COMMANDS");
  });
});

describe("commands that do not exist", () => {
  test.each([
    ["mvoe", "did you mean fixture move?"],
    ["constructor", "fixture --help lists the commands"],
    ["__proto__", "fixture --help lists the commands"],
    ["toString", "fixture --help lists the commands"],
    ["--json", "fixture --help lists the commands"],
  ])("%s", async (name, hint) => {
    const { stderr, exitCode } = await fixture(name);
    expect(exitCode).toBe(2);
    const what = name.startsWith("-") ? "flag" : "command";
    expect(stderr).toBe(`fixture: There is no ${what} "${name}"\n  hint: ${hint}\n`);
  });
});

describe("exit codes", () => {
  test("a command's own code is passed on", async () => {
    expect((await fixture("look", "one")).exitCode).toBe(0);
    expect((await fixture("look", "two")).exitCode).toBe(3);
  });

  test("an operating error is 1, with the chain once and its hints", async () => {
    const { stdout, stderr, exitCode } = await fixture("move", "--guest=x", "--fail=operating");
    expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 1 });
    expect(stderr).toBe(
      "moving 1048576 bytes\n" +
        "fixture: The guest did not move: The peer closed the connection\n" +
        "  hint: look at its own messages\n",
    );
  });

  test("with --json it is also the last event", async () => {
    const result = await fixture("move", "--guest=x", "--fail=operating", "--json");
    const event = eventsSchema.parse(JSON.parse(result.stdout));
    expect(event).toMatchObject({
      event: "error",
      code: "MOVE_FAILED",
      message: "The guest did not move: The peer closed the connection",
      hints: ["look at its own messages"],
      exitCode: 1,
    });
  });

  test("with --verbose the stacks of the whole chain follow", async () => {
    const { stderr } = await fixture("move", "--guest=x", "--fail=operating", "-v");
    expect(stderr).toContain("limit undefined");
    expect(stderr.match(/^PostcopyError: /gm)).toHaveLength(2);
  });

  test("a host that lacks something is 3", async () => {
    const { stderr, exitCode } = await fixture("move", "--guest=x", "--fail=host");
    expect(exitCode).toBe(3);
    expect(stderr).toContain("fixture: This host has no userfaultfd\n");
  });

  test("a mistake of the program is 1, says so, and shows where", async () => {
    const { stderr, exitCode } = await fixture("move", "--guest=x", "--fail=internal");
    expect(exitCode).toBe(1);
    expect(stderr).toContain("fixture: internal error: x is not a function\n");
    expect(stderr).toContain("program-fixture.ts:");
  });

  test("also when nobody caught it, and while something else would go on for ever", async () => {
    const { stdout, stderr, exitCode } = await fixture(
      "move",
      "--guest=x",
      "--fail=late",
      "--json",
    );
    expect(exitCode).toBe(1);
    expect(stderr).toContain("fixture: internal error: nobody caught\n");
    expect(JSON.parse(stdout)).toMatchObject({ event: "error", code: "INTERNAL" });
  });

  test("a wrong value is 2", async () => {
    const { stderr, exitCode } = await fixture("move", "--guest=x", "--size=4g");
    expect(exitCode).toBe(2);
    expect(stderr).toStartWith('fixture: Flag --size: "4g" has no known unit of size');
  });
});

describe("output", () => {
  test("people read standard error; standard output stays empty", async () => {
    const { stdout, stderr, exitCode } = await fixture("move", "--guest=x");
    expect({ stdout, exitCode }).toEqual({ stdout: "", exitCode: 0 });
    expect(stderr).toContain("warning: Something is odd\nMoved stress:size=1GiB to tcp:");
  });

  test("--json puts events there, --report the report into a file, whole", async () => {
    await using directory = new TemporaryDirectory("report");
    const file = directory.file("report.json");
    const { stdout } = await fixture("move", "--guest=x", "--json", "--report", file);
    const events = stdout
      .trimEnd()
      .split("\n")
      .map((line) => eventsSchema.parse(JSON.parse(line)));
    expect(events.map(({ event }) => event)).toEqual(["warning", "report"]);
    expect(await Bun.file(file).json()).toEqual(sourceReport);
  });

  test("a report that cannot be written is found out before the guest moves", async () => {
    await using directory = new TemporaryDirectory("report");
    const file = directory.file("missing/report.json");
    const { stderr, exitCode } = await fixture("move", "--guest=x", "--report", file);
    expect(exitCode).toBe(2);
    expect(stderr).toStartWith("fixture: Flag --report: ");
    expect(stderr).not.toContain("moving");
  });

  test("a report that turns out not to be writable is a warning: the guest has moved", async () => {
    await using directory = new TemporaryDirectory("report");
    const { stderr, exitCode } = await fixture("move", "--guest=x", "--report", directory.path);
    expect(exitCode).toBe(0);
    expect(stderr).toContain("warning: The report could not be written to ");
  });

  test("--quiet leaves warnings", async () => {
    const { stderr } = await fixture("move", "--guest=x", "--quiet");
    expect(stderr).toBe("warning: Something is odd\n");
  });

  test("a reader that goes away stops nothing", async () => {
    const shell = `"$0" "$1" chat --json | head -c 1; echo " \${PIPESTATUS[0]}"`;
    const { stdout, stderr } = await run(["bash", "-c", shell, process.execPath, FIXTURE]);
    expect({ stdout, stderr }).toEqual({ stdout: "{ 7\n", stderr: "" });
  });
});
