/** What a QEMU is given for one migration, and that it gets it back when it refuses a part of it. */
import { expect, test } from "bun:test";
import { ChangedSettings } from "../../../src/guests/qemu/settings.ts";
import { QmpClient } from "../../../src/qmp/client.ts";
import { FakeMonitor } from "../../helpers/fake-monitor.ts";
import type { FakeAnswer } from "../../helpers/fake-monitor.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

test("capabilities are put back where QEMU then refuses a parameter", async () => {
  await using directory = new TemporaryDirectory("settings");
  const path = directory.file("qmp");
  const capabilities = new Map([
    ["postcopy-ram", false],
    ["release-ram", true],
  ]);
  const answer: FakeAnswer = ({ command, id, parameters }) => {
    switch (command) {
      case "query-migrate-capabilities": {
        const list = [...capabilities].map(([capability, state]) => ({ capability, state }));
        return [{ return: list, id }];
      }
      case "query-migrate-parameters":
        return [{ return: { "downtime-limit": 300 }, id }];
      case "migrate-set-capabilities": {
        const asked = parameters as { capabilities: { capability: string; state: boolean }[] };
        for (const { capability, state } of asked.capabilities) capabilities.set(capability, state);
        return [{ return: {}, id }];
      }
      default: {
        const isOurs = parameters?.["downtime-limit"] !== 300;
        const error = { class: "GenericError", desc: "expects an integer up to 2000 seconds" };
        return [isOurs ? { error, id } : { return: {}, id }];
      }
    }
  };
  using _monitor = new FakeMonitor(path, answer);
  const qmp = await QmpClient.connect(path);
  const change = ChangedSettings.change(qmp, {
    needed: { "postcopy-ram": true },
    wished: { "release-ram": false },
    parameters: { "downtime-limit": 3_000_000 },
  });
  const error = await change.catch((reason: unknown) => reason);
  qmp.close();
  expect(error).toMatchObject({ code: "QEMU_REFUSED" });
  expect(Object.fromEntries(capabilities)).toEqual({ "postcopy-ram": false, "release-ram": true });
});
