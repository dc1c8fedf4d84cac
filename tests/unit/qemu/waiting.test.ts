/** What is made of a QEMU that an earlier `--run` has left, by the status of its migration. */
import { expect, test } from "bun:test";
import { WaitingQemu } from "../../../src/guests/qemu/waiting.ts";
import { PostcopyError } from "../../../src/util/errors.ts";
import { FakeMonitor } from "../../helpers/fake-monitor.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

/** What is found of one that has these statuses, one after the other, and then always the last. */
async function find(
  statuses: readonly string[],
  patienceMs?: number,
): Promise<boolean | PostcopyError> {
  await using directory = new TemporaryDirectory("waiting");
  let asked = 0;
  using _monitor = new FakeMonitor(directory.file("qmp"), ({ id }) => {
    return [{ return: { status: statuses[Math.min(asked++, statuses.length - 1)] }, id }];
  });
  const qemu = await WaitingQemu.find(directory.file("qmp"));
  try {
    return await qemu.missesPages(patienceMs);
  } catch (error) {
    if (error instanceof PostcopyError) return error;
    throw error;
  } finally {
    qemu.close();
  }
}

test("one that has not noticed yet that its source is gone is waited for, also in a recovery", async () => {
  const recovery = ["postcopy-recover-setup", "postcopy-recover"];
  expect(await find(["postcopy-active", ...recovery, "postcopy-paused"])).toBe(true);
  expect(await find([...recovery, "postcopy-active", "completed"])).toBe(false);
});

for (const status of ["postcopy-active", "postcopy-recover", "postcopy-recover-setup"]) {
  test(`one that stays ${status} has the guest: it is never advised to end it`, async () => {
    const hint =
      "the guest is in it: leave it, and repeat this command when it has lost its source";
    expect(await find([status], 0)).toMatchObject({ code: "NOT_WAITING", hint });
  });
}

for (const status of ["none", "setup", "failed"]) {
  test(`one that is ${status} has no guest: it may be ended`, async () => {
    const hint = "end it; then send the guest again, without --resume";
    expect(await find([status])).toMatchObject({ code: "NOT_WAITING", hint });
  });
}
