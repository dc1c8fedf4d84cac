/** `postcopy journal` where nothing was ever handed over. */
import { expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { LONG_TEST_MS } from "../../helpers/deadline.ts";
import { runPostcopy } from "../../helpers/postcopy-run.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

test(
  "a journal that is not there is not made: a name that is mistyped is told of",
  async () => {
    await using directory = new TemporaryDirectory("journal");
    const nowhere = directory.file("nowhere");
    for (const words of [[], ["--forget", "0123456789abcdef-1-1"]]) {
      const { exitCode, stderr } = await runPostcopy(["journal", "--journal", nowhere, ...words]);
      expect(exitCode).toBe(1);
      expect(stderr).toContain(`There is no journal in ${nowhere}`);
    }
    // Where it would be by itself there is just nothing yet.
    const environment = { XDG_STATE_HOME: nowhere };
    if (process.getuid?.() !== 0) {
      expect(await runPostcopy(["journal"], undefined, environment)).toMatchObject({ exitCode: 0 });
    }
    expect(existsSync(nowhere)).toBe(false);
    expect(readdirSync(directory.path)).toEqual([]);
  },
  LONG_TEST_MS,
);
