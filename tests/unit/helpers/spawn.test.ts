/** The fixtures that run programs: output, exit codes, deadlines, and nothing left behind. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";

import { DeadlineError, waitUntil, withDeadline } from "../../helpers/deadline.ts";
import { PROJECT_ROOT, run, spawn } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

describe("run", () => {
  test("gives the exit code and both outputs", async () => {
    expect(await run(["sh", "-c", "echo out; echo err >&2; exit 3"])).toEqual({
      exitCode: 3,
      signal: null,
      stdout: "out\n",
      stderr: "err\n",
    });
  });

  test("passes input, working directory and environment", async () => {
    const environment = { ADDED: "yes", HOME: undefined };
    const script = 'read line; echo "$line $ADDED ${HOME-none}"; pwd';
    const { stdout } = await run(["sh", "-c", script], { input: "in", environment, cwd: "/" });
    expect(stdout).toBe("in yes none\n/\n");
  });

  test("names the signal that ended a program", async () => {
    expect(await run(["sh", "-c", "kill -TERM $$"])).toMatchObject({
      exitCode: null,
      signal: "SIGTERM",
    });
  });

  test("kills a program that outlives its limit, and shows what it had said", async () => {
    const slow = run(["sh", "-c", "echo still here; exec sleep 600"], { lifeMs: 200 });
    await expect(slow).rejects.toThrow(/did not end within 200 ms[\s\S]*still here/);
  });
});

describe("spawn", () => {
  test("waits for a line, in either output, while the program runs", async () => {
    await using program = spawn(["sh", "-c", "echo port 42 >&2; read line; echo got $line"]);
    const match = await program.stderr.waitForLine(/^port (\d+)$/);
    expect(match[1]).toBe("42");
    program.writeLine("this");
    await program.stdout.waitForLine(/^got this$/);
    expect(await program.finish()).toMatchObject({ exitCode: 0 });
  });

  test("a line that never comes is an error with the end of the output", async () => {
    await using program = spawn(["sh", "-c", "echo something else"]);
    await expect(program.stdout.waitForLine(/hello/)).rejects.toThrow(
      /no line matches \/hello\/[\s\S]*something else/,
    );
    await using silent = spawn(["sleep", "600"]);
    await expect(silent.stdout.waitForLine(/hello/, { limitMs: 50 })).rejects.toThrow(
      DeadlineError,
    );
  });

  test("reads events, the last line without its newline too, and refuses what is not a JSON object", async () => {
    await using good = spawn(["printf", '{"event":"a"}\\n{"event":"b"}']);
    expect(await Array.fromAsync(good.events())).toEqual([{ event: "a" }, { event: "b" }]);
    await using bad = spawn(["printf", "[1]\\n"]);
    await expect(Array.fromAsync(bad.events())).rejects.toThrow("not a JSON object");
  });

  test("leaves nothing running at the end of the block", async () => {
    let pid = 0;
    {
      await using program = spawn(["sleep", "600"]);
      pid = program.pid;
      expect(program.running).toBe(true);
    }
    expect(() => process.kill(pid, 0)).toThrow("ESRCH");
  });
});

describe("deadlines", () => {
  test("pass a result and an error through", async () => {
    expect(await withDeadline(Promise.resolve(1), "one")).toBe(1);
    await expect(withDeadline(Promise.reject(new Error("no")), "one")).rejects.toThrow("no");
  });

  test("say what was awaited", async () => {
    const never = Promise.withResolvers<never>().promise;
    await expect(withDeadline(never, "nothing", 10)).rejects.toThrow("in vain for nothing");
    await expect(waitUntil(() => undefined, "nothing", 10)).rejects.toThrow(DeadlineError);
  });

  test("waitUntil returns the first thing seen", async () => {
    let looks = 0;
    expect(await waitUntil(() => (++looks === 3 ? looks : undefined), "three")).toBe(3);
  });
});

test("a temporary directory goes away with what is in it", async () => {
  let path = "";
  {
    await using directory = new TemporaryDirectory();
    path = directory.path;
    await Bun.write(directory.file("a"), "text");
    expect(existsSync(directory.file("a"))).toBe(true);
  }
  expect(existsSync(path)).toBe(false);
});

test("postcopy is the executable that was built for the tests, or else runs from its sources", async () => {
  const helper = JSON.stringify(join(PROJECT_ROOT, "tests", "helpers", "spawn.ts"));
  const code = `const { postcopyCommand } = await import(${helper});
    console.log(JSON.stringify(postcopyCommand("check", "--json")));`;
  const commandWith = async (executable: string | undefined): Promise<unknown> => {
    const environment = { POSTCOPY_EXECUTABLE: executable };
    const { stdout } = await run([process.execPath, "-e", code], { environment });
    return JSON.parse(stdout);
  };
  expect(await commandWith("/built/postcopy")).toEqual(["/built/postcopy", "check", "--json"]);
  const sources = [process.execPath, join(PROJECT_ROOT, "src", "cli.ts")];
  expect(await commandWith(undefined)).toEqual([...sources, "check", "--json"]);
});
