/** What a QEMU is given for one migration, and that it gets it back when it refuses a part of it. */
import { expect, test } from "bun:test";
import { ChangedSettings } from "../../../src/guests/qemu/settings.ts";
import { QmpClient } from "../../../src/qmp/client.ts";
import { FakeMonitor } from "../../helpers/fake-monitor.ts";
import type { FakeAnswer } from "../../helpers/fake-monitor.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const HOSTNAME = "host.example";

/** A monitor that keeps parameters; capabilities it has none, and refuses them the second time. */
function keepParameters(parameters: Record<string, unknown>): FakeAnswer {
  let switched = 0;
  return ({ command, id, parameters: asked }) => {
    const refusal = { error: { class: "GenericError", desc: "not now" }, id };
    switch (command) {
      case "query-migrate-capabilities":
        return [{ return: [], id }];
      case "query-migrate-parameters":
        return [{ return: parameters, id }];
      case "migrate-set-capabilities":
        return [++switched === 1 ? { return: {}, id } : refusal];
      case "migrate-set-parameters":
        Object.assign(parameters, asked);
        return [{ return: {}, id }];
      default:
        return [{ return: {}, id }];
    }
  };
}

/** What a migration is done with, and what is there afterwards. */
const OF_TLS: {
  what: string;
  before: [creds: string, hostname: string];
  tls?: { hostname: string | undefined };
  during: [creds: string, hostname: string];
  after: [creds: string, hostname: string];
}[] = [
  {
    what: "what a killed run left is not used without TLS, and not put back",
    ...{ before: ["postcopy-tls", HOSTNAME], during: ["", ""], after: ["", ""] },
  },
  {
    what: "what a killed run left is not used with TLS, and not put back",
    ...{ before: ["postcopy-tls", HOSTNAME], tls: { hostname: undefined } },
    ...{ during: ["postcopy-tls", ""], after: ["", ""] },
  },
  {
    what: "the operator's own TLS stays without --tls",
    ...{ before: ["own", HOSTNAME], during: ["own", HOSTNAME], after: ["own", HOSTNAME] },
  },
  {
    what: "the operator's own TLS makes way for ours, and is put back",
    ...{ before: ["own", HOSTNAME], tls: { hostname: "other.example" } },
    ...{ during: ["postcopy-tls", "other.example"], after: ["own", HOSTNAME] },
  },
];

for (const { what, before, tls, during, after } of OF_TLS) {
  test(`${what}, also where the capabilities cannot be`, async () => {
    await using directory = new TemporaryDirectory("settings");
    const parameters = { "tls-creds": before[0], "tls-hostname": before[1] };
    using _monitor = new FakeMonitor(directory.file("qmp"), keepParameters(parameters));
    const qmp = await QmpClient.connect(directory.file("qmp"));
    const changed = await ChangedSettings.change(qmp, {
      ...{ needed: {}, wished: {}, parameters: {} },
      tls: tls && { directory: "/tls", end: "client", ...tls },
    });
    expect(Object.values(parameters)).toEqual(during);
    await changed.putBack();
    qmp.close();
    expect(Object.values(parameters)).toEqual(after);
  });
}

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
