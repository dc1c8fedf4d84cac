/** The client against a monitor of a few lines: ids, refusals, silence, nonsense, an end. */
import { describe, expect, test } from "bun:test";
import * as z from "zod";

import { QmpClient, QmpError } from "../../../src/qmp/client.ts";
import type { ConnectOptions, QmpEvent } from "../../../src/qmp/client.ts";
import { MonitorError } from "../../../src/qmp/monitor-socket.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { FakeMonitor, fakeEvent } from "../../helpers/fake-monitor.ts";
import type { FakeAnswer, FakeRequest } from "../../helpers/fake-monitor.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

/** Runs `body` with a client of a monitor that answers with `answer`. */
async function withMonitor(
  answer: FakeAnswer,
  body: (client: QmpClient, monitor: FakeMonitor) => Promise<void>,
  options: ConnectOptions = {},
): Promise<void> {
  await using directory = new TemporaryDirectory("qmp");
  const path = directory.file("qmp");
  using monitor = new FakeMonitor(path, answer);
  const client = await QmpClient.connect(path, options);
  try {
    await body(client, monitor);
  } finally {
    client.close();
  }
}

/** What connecting to a monitor that says `greeting` fails with. */
async function connectionError(greeting: string): Promise<unknown> {
  await using directory = new TemporaryDirectory("qmp");
  const path = directory.file("qmp");
  using _monitor = new FakeMonitor(path, () => [], greeting);
  return await QmpClient.connect(path, { greetingTimeoutMs: 50 }).then(
    () => undefined,
    (error: unknown) => error,
  );
}

const done: FakeAnswer = ({ id }) => [{ return: {}, id }];
const anything = z.unknown();

describe("connecting", () => {
  test("says which release it is, and asks for nothing", async () => {
    await withMonitor(done, async (client, monitor) => {
      expect(client.version).toBe("7.2.22");
      expect(monitor.negotiated).toEqual({});
    });
  });
  test("nobody there", async () => {
    const error = await QmpClient.connect("/nowhere/qmp").catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(MonitorError);
    expect(error).toMatchObject({ code: "NO_MONITOR" });
  });
  test("a monitor that serves somebody else is silent", async () => {
    expect(await connectionError("")).toMatchObject({ code: "MONITOR_SILENT" });
  });
  test.each([
    ["a monitor for people", "QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) "],
    ["another protocol of JSON lines", '{"hello": 1}\r\n'],
    ["a greeting without a version", '{"QMP": {}}\r\n'],
  ])("%s", async (_, greeting) => {
    expect(await connectionError(greeting)).toMatchObject({ code: "NO_MONITOR" });
  });
});

describe("commands", () => {
  test("each gets its own answer, whatever their order", async () => {
    const late: FakeRequest[] = [];
    const answer: FakeAnswer = (request) => {
      late.push(request);
      if (late.length < 2) return [fakeEvent("NOTHING")];
      return late.reverse().map(({ command, id }) => ({ return: command, id }));
    };
    await withMonitor(answer, async (client) => {
      const both = ["first", "second"].map((name) => client.execute(name, {}, anything));
      expect(await Promise.all(both)).toEqual(["first", "second"]);
    });
  });
  test("a refusal is an error with its class and QEMU's own words", async () => {
    const answer: FakeAnswer = ({ id }) => [
      { error: { class: "GenericError", desc: "not now" }, id },
    ];
    await withMonitor(answer, async (client) => {
      const error = await client.run("migrate").catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(QmpError);
      expect(error).toMatchObject({
        code: "QEMU_REFUSED",
        message: "QEMU refused migrate: not now",
        errorClass: "GenericError",
      });
    });
  });
  test("an answer of the wrong shape is an error that says where", async () => {
    const answer: FakeAnswer = ({ id }) => [{ return: { running: "yes" }, id }];
    await withMonitor(answer, async (client) => {
      const schema = z.looseObject({ running: z.boolean() });
      await expect(client.execute("query-status", {}, schema)).rejects.toMatchObject({
        code: "MONITOR_ANSWER",
        message: expect.stringContaining("running"),
      });
    });
  });
  test("no answer in time is an error, and the answer that comes late is nobody's", async () => {
    const late: FakeRequest[] = [];
    const answer: FakeAnswer = (request) => {
      const before = late.splice(0).map(({ id }) => ({ return: "late", id }));
      if (request.command === "slow") late.push(request);
      else return [...before, { return: "in time", id: request.id }];
      return [fakeEvent("NOTHING")];
    };
    await withMonitor(answer, async (client) => {
      const slow = client.execute("slow", {}, anything, { timeoutMs: 20 });
      await expect(slow).rejects.toMatchObject({ code: "MONITOR_SILENT" });
      expect(await client.execute("fast", {}, anything)).toBe("in time");
    });
  });
  test("a command longer than the socket's buffer arrives whole", async () => {
    const text = "x".repeat(4 * 1024 * 1024);
    let seen = "";
    await using directory = new TemporaryDirectory("qmp");
    const path = directory.file("qmp");
    using _server = Bun.listen({
      unix: path,
      socket: {
        open: (socket) => {
          socket.write(
            '{"QMP":{"version":{"qemu":{"major":8,"minor":0,"micro":0}},"capabilities":[]}}\n',
          );
        },
        data: (socket, bytes) => {
          seen += bytes.toString();
          if (!seen.endsWith("\n")) return;
          const { id } = JSON.parse(seen) as { id: number };
          const characters = seen.length;
          seen = "";
          socket.write(`${JSON.stringify({ return: characters, id })}\n`);
        },
      },
    });
    const client = await QmpClient.connect(path);
    expect(await client.execute("long", { text }, z.number())).toBeGreaterThan(text.length);
    client.close();
  });
  test("run beside the others only where the monitor was asked for it", async () => {
    const words = { uri: "tcp:127.0.0.1:1" };
    await withMonitor(
      done,
      async (client, monitor) => {
        await client.execute("migrate-recover", words, anything, { outOfBand: true });
        expect(monitor.negotiated).toEqual({ enable: ["oob"] });
        expect(monitor.requests).toEqual([
          { command: "migrate-recover", outOfBand: true, id: 2, parameters: words },
        ]);
      },
      { outOfBand: true },
    );
  });
});

describe("events", () => {
  test("come in order, from the first on, and stop when nobody listens", async () => {
    const events: QmpEvent[] = [];
    let seconds = 0;
    const answer: FakeAnswer = ({ id }) => [
      fakeEvent("MIGRATION", { status: "active" }, ++seconds),
      { return: {}, id },
    ];
    const onEvent = (event: QmpEvent): unknown => events.push(event);
    await withMonitor(
      answer,
      async (client) => {
        const names: string[] = [];
        const stop = client.onEvent(({ name }) => names.push(name));
        await client.run("one");
        stop();
        await client.run("two");
        expect(events.map(({ timeMs }) => timeMs)).toEqual([1500, 2500]);
        expect(events[0]).toMatchObject({ name: "MIGRATION", data: { status: "active" } });
        expect(names).toEqual(["MIGRATION"]);
      },
      { onEvent },
    );
  });
});

describe("an end", () => {
  test("fails what is under way, and what comes after", async () => {
    await withMonitor(
      () => [],
      async (client) => {
        await expect(client.run("quit")).rejects.toMatchObject({ code: "MONITOR_CLOSED" });
        await expect(client.run("again")).rejects.toMatchObject({ code: "MONITOR_CLOSED" });
        expect(client.failure).toBeInstanceOf(MonitorError);
      },
    );
  });
  test("nonsense in the middle ends it: what follows cannot be trusted", async () => {
    await withMonitor(done, async (client, monitor) => {
      monitor.say("}{\n");
      await waitUntil(() => client.failure !== undefined, "the end");
      expect(client.failure).toMatchObject({ code: "NO_MONITOR" });
    });
  });
  test("so does a line that does not end", async () => {
    await withMonitor(done, async (client, monitor) => {
      await waitUntil(() => {
        monitor.say("x".repeat(1024 * 1024));
        return client.failure !== undefined;
      }, "the end");
      expect(client.failure).toMatchObject({ code: "MONITOR_ANSWER" });
    });
  });
});
