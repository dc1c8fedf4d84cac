/** The driver against a monitor of a few lines: what an operator's cancel meets in the middle. */
import { expect, test } from "bun:test";
import { QemuSourceDriver } from "../../../src/guests/qemu/source-driver.ts";
import type { DriveEvent, DriveSettings } from "../../../src/guests/qemu/source-driver.ts";
import { QmpClient } from "../../../src/qmp/client.ts";
import { FakeMonitor, fakeEvent } from "../../helpers/fake-monitor.ts";
import type { FakeAnswer } from "../../helpers/fake-monitor.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const SETTINGS: DriveSettings = {
  policy: { kind: "now" },
  ...{ maxBandwidth: 0, maxPostcopyBandwidth: 0, downtimeLimitMs: 300 },
  ...{ preempt: false, keep: false, recoverTimeoutMs: 0, patienceMs: 60_000 },
};

/** A driver of a monitor that answers with `answer`; gives the commands that came. */
async function drive(
  answer: FakeAnswer,
  emit: (event: DriveEvent, driver: QemuSourceDriver) => void,
  body: (driver: QemuSourceDriver) => Promise<void>,
): Promise<string[]> {
  await using directory = new TemporaryDirectory("driver");
  const path = directory.file("qmp");
  using monitor = new FakeMonitor(path, answer);
  const qmp = await QmpClient.connect(path);
  const driver = new QemuSourceDriver(qmp, SETTINGS, (event) => emit(event, driver));
  try {
    await body(driver);
  } finally {
    qmp.close();
  }
  return monitor.requests.map(({ command }) => command);
}

test("a cancel does not come behind the command that switches over", async () => {
  const cancels: Promise<boolean>[] = [];
  let active: QemuSourceDriver | undefined;
  let status = "active";
  const answer: FakeAnswer = ({ command, id }) => {
    if (command === "query-migrate") return [{ return: { status }, id }];
    if (command === "migrate-start-postcopy") {
      // QEMU has it; its answer is still under way.
      if (active !== undefined) cancels.push(active.cancel());
      status = "completed";
    }
    return [{ return: {}, id }];
  };
  const commands = await drive(
    answer,
    () => undefined,
    async (driver) => {
      active = driver;
      await driver.migrate("tcp:127.0.0.1:1");
    },
  );
  expect(await Promise.all(cancels)).toEqual([false]);
  expect(commands).toContain("migrate-start-postcopy");
  expect(commands).not.toContain("migrate_cancel");
});

test("what was cancelled is not tried again, also where nobody was there to cancel for", async () => {
  const failed = { status: "failed", "error-desc": "Failed to connect: Connection refused" };
  const answer: FakeAnswer = ({ command, id }) => {
    return [{ return: command === "query-migrate" ? failed : {}, id }];
  };
  let error: unknown;
  const commands = await drive(
    answer,
    ({ kind }, driver) => {
      if (kind === "waiting") void driver.cancel();
    },
    async (driver) => {
      error = await driver.migrate("tcp:127.0.0.1:1").catch((reason: unknown) => reason);
    },
  );
  expect(error).toMatchObject({ code: "STOPPED" });
  expect(commands.filter((command) => command === "migrate")).toHaveLength(1);
});

test("nor into a completion in precopy, for which the guest stands already", async () => {
  let isLast = false;
  const answer: FakeAnswer = ({ command, id }) => {
    if (command !== "query-migrate") return [{ return: {}, id }];
    const status = isLast ? "completed" : "device";
    isLast = true;
    return [fakeEvent("MIGRATION", { status }), { return: { status }, id }];
  };
  const cancels: Promise<boolean>[] = [];
  const commands = await drive(
    answer,
    (event, driver) => {
      if (event.kind === "status" && event.status === "device") cancels.push(driver.cancel());
    },
    async (driver) => await driver.migrate("tcp:127.0.0.1:1"),
  );
  expect(await Promise.all(cancels)).toEqual([false]);
  expect(commands).not.toContain("migrate_cancel");
});
