/** The keeper that `dest --keep-fd` is told of, before there is a VMM to keep. */
import { expect, test } from "bun:test";
import { checkKeeper } from "../../../src/commands/kept-vmm.ts";
import { LONG_TEST_MS } from "../../helpers/deadline.ts";
import { postcopyCommand, spawn } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

test(
  "a holder that is just being started is waited for, and not for longer than that",
  async () => {
    await using directory = new TemporaryDirectory("hold");
    const path = directory.file("hold");
    const word = { kind: "holder", path } as const;
    const refusal = await checkKeeper(word, 0).catch((error: unknown) => error);
    expect(refusal).toMatchObject({ code: "NO_KEEPER" });
    // It has looked once when the call returns, and nobody was there.
    const waiting = checkKeeper(word, LONG_TEST_MS);
    await using holder = spawn(postcopyCommand("hold", "--socket", path));
    await waiting;
    expect(holder.running).toBe(true);
  },
  LONG_TEST_MS,
);
