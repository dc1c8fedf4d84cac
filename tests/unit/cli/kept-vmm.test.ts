/** The keeper that `dest --keep-fd` is told of. */
import { expect, test } from "bun:test";
import { KeeperWatch } from "../../../src/commands/keeper-watch.ts";
import { checkKeeper, KeptVmm } from "../../../src/commands/kept-vmm.ts";
import { LONG_TEST_MS, waitUntil, withDeadline } from "../../helpers/deadline.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { startHolder } from "../../helpers/filled-vmm.ts";
import { postcopyCommand, spawn } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

test(
  "what a holder has is held while it lives, also while it stands still; the next one is given it",
  async () => {
    await using directory = new TemporaryDirectory("hold");
    using descriptors = new Descriptors();
    const path = directory.file("hold");
    await using holder = await startHolder(path);
    const userfaultFd = descriptors.event();
    const handover = {
      regions: [{ address: 4096, length: 4096, offset: 0, pageSize: 4096 }],
      userfaultFd,
    };
    const vmm = { handover, pid: process.pid, processFd: -1, connection: -1 };
    const kept = await KeptVmm.keep({ kind: "holder", path }, vmm);
    const lost = Promise.withResolvers<string>();
    const output = { warn: (code: string) => lost.resolve(code) };
    const watch = new KeeperWatch(kept, -1, output);
    holder.kill("SIGSTOP");
    expect(kept.isHeld).toBe(true);
    holder.kill("SIGKILL");
    expect(await withDeadline(lost.promise, "the warning")).toBe("KEEPER_LOST");
    expect(kept.isHeld).toBe(false);
    await using next = await startHolder(path);
    await waitUntil(() => kept.isHeld, "the next holder to have it");
    expect((await next.stderr.waitForLine(/Held for process (\d+)/))[1]).toBe(String(process.pid));
    await watch.end();
    await kept.forget();
    expect(await next.finish()).toMatchObject({ exitCode: 0 });
    kept.close();
    descriptors.add(kept.state.fd);
  },
  LONG_TEST_MS,
);

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
