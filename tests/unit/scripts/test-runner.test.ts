/** The last line of a test run: right counts, and never a success that the exit code denies. */
import { describe, expect, test } from "bun:test";

import { countTests, describeCounts, FailureLog } from "../../../scripts/test.ts";
import { isCi } from "../../helpers/need.ts";
import { run } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const REPORT =
  '<?xml version="1.0"?>\n<testsuites name="bun test" tests="9" failures="2" skipped="3">\n' +
  '  <testsuite name="a" tests="9" failures="2" skipped="3"></testsuite>\n</testsuites>\n';

describe("countTests", () => {
  test("takes the totals of the report", () => {
    expect(countTests(REPORT, 1)).toEqual({ passed: 4, failed: 2, skipped: 3 });
  });

  test("counts a run as failed that its exit code says has failed", () => {
    const clean = REPORT.replaceAll('failures="2"', 'failures="0"');
    expect(countTests(clean, 0)).toEqual({ passed: 6, failed: 0, skipped: 3 });
    expect(countTests(clean, 1).failed).toBe(1);
    expect(countTests(undefined, 139)).toEqual({ passed: 0, failed: 1, skipped: 0 });
  });
});

test("the line is the one that CI summaries know", () => {
  expect(describeCounts({ passed: 12, failed: 0, skipped: 1 })).toBe(
    "12 passed, 0 failed, 1 skipped",
  );
});

test("what failed is said once more, with its reasons and nothing of the tests around it", () => {
  const log = new FailureLog();
  const lines = [
    ...["tests/a.test.ts:", "(pass) first [1.00ms]", "12 |  expect(a).toBe(b)", "error: not b"],
    ...["\u001B[31m(fail)\u001B[0m second [2.00ms]", "error: late", "(pass) third [1.00ms]", ""],
    ...["(fail) second [2.00ms]", " 2 pass"],
  ];
  for (const line of lines) log.take(line);
  expect(log.failures).toEqual([lines.slice(2, 5).join("\n"), "error: late"]);
});

/** A test file in which one test passes and one needs what no machine has. */
const NEEDY = `
import { test } from "bun:test";
import { requireOrSkip } from ${JSON.stringify(require.resolve("../../helpers/need.ts"))};
test("always", () => {});
requireOrSkip({ what: "a unicorn", missing: "catch one" })("with a unicorn", () => {});
`;

describe("requireOrSkip", () => {
  const runNeedy = async (ci: string | undefined): Promise<string> => {
    await using directory = new TemporaryDirectory("needy");
    await Bun.write(directory.file("needy.test.ts"), NEEDY);
    const command = [process.execPath, "test", "./needy.test.ts"];
    const { stderr } = await run(command, { cwd: directory.path, environment: { CI: ci } });
    return stderr;
  };

  test("skips on a developer's machine", async () => {
    const output = await runNeedy(undefined);
    expect(output).toContain("(skip) with a unicorn");
    expect(output).toContain("0 fail");
  });

  test("fails in CI, and says what is missing", async () => {
    const output = await runNeedy("true");
    expect(output).toContain("(fail) with a unicorn");
    expect(output).toContain("a unicorn is missing; catch one");
  });

  test("knows CI by CI=true alone", () => {
    expect([{}, { CI: "" }, { CI: "false" }, { CI: "true" }].map((each) => isCi(each))).toEqual([
      false,
      false,
      false,
      true,
    ]);
  });
});
