/** The QMP client against a monitor of a few lines: ids, errors, events early and late, an end. */
import { describe, expect, test } from "bun:test";

import { QmpClient } from "../../helpers/qmp.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const GREETING = { QMP: { version: {}, capabilities: ["oob"] } };

interface Request {
  execute?: string;
  "exec-oob"?: string;
  id: number;
  arguments?: unknown;
}

/** A monitor that answers each command with what `answer` makes of it, in one write. */
function listen(
  path: string,
  answer: (request: Request) => object[],
): Bun.UnixSocketListener<undefined> {
  return Bun.listen({
    unix: path,
    socket: {
      open: (socket) => {
        socket.write(`${JSON.stringify(GREETING)}\r\n`);
      },
      data: (socket, bytes) => {
        for (const line of bytes.toString().trim().split("\n")) {
          const request = JSON.parse(line) as Request;
          const replies = answer(request).map((reply) => `${JSON.stringify(reply)}\r\n`);
          if (replies.length === 0) socket.end();
          else socket.write(replies.join(""));
        }
      },
    },
  });
}

/** Runs `body` with a client of a monitor that answers with `answer`. */
async function withMonitor(
  answer: (request: Request) => object[],
  body: (client: QmpClient) => Promise<void>,
  outOfBand = false,
): Promise<void> {
  await using directory = new TemporaryDirectory("qmp");
  const path = directory.file("qmp");
  using _monitor = listen(path, answer);
  await using client = await QmpClient.connect(path, { outOfBand });
  await body(client);
}

describe("QmpClient", () => {
  test("gives each command its own answer, whatever their order", async () => {
    const late: Request[] = [];
    const answer = (request: Request): object[] => {
      if (request.execute === "qmp_capabilities") return [{ return: {}, id: request.id }];
      late.push(request);
      if (late.length < 2) return [{ event: "NOTHING" }];
      return late.reverse().map(({ execute, id }) => ({ return: execute, id }));
    };
    await withMonitor(answer, async (client) => {
      const both = [client.execute("first"), client.execute("second")];
      expect(await Promise.all(both)).toEqual(["first", "second"]);
    });
  });

  test("turns a refusal into an error with its class", async () => {
    const answer = ({ execute, id }: Request): object[] =>
      execute === "qmp_capabilities"
        ? [{ return: {}, id }]
        : [{ error: { class: "GenericError", desc: "not now" }, id }];
    await withMonitor(answer, async (client) => {
      await expect(client.execute("migrate")).rejects.toMatchObject({
        message: "QMP migrate: not now",
        errorClass: "GenericError",
      });
    });
  });

  test("keeps events that came before they were asked for", async () => {
    let seconds = 1;
    const answer = ({ id }: Request): object[] => {
      const timestamp = { seconds: seconds++, microseconds: 500_000 };
      const event = { event: "MIGRATION", data: { status: "active" }, timestamp };
      return [event, { return: {}, id }];
    };
    await withMonitor(answer, async (client) => {
      expect(await client.waitForEvent("MIGRATION")).toEqual({
        event: "MIGRATION",
        data: { status: "active" },
        timeMs: 1500,
      });
      const second = client.waitForEvent("MIGRATION", { from: client.events.length });
      await client.execute("anything");
      expect((await second).timeMs).toBe(2500);
      const other = { accept: () => false, limitMs: 20 };
      await expect(client.waitForEvent("MIGRATION", other)).rejects.toThrow("seen were");
    });
  });

  test("asks for out-of-band execution, and uses it", async () => {
    const requests: Request[] = [];
    const answer = (request: Request): object[] => {
      requests.push(request);
      return [{ return: {}, id: request.id }];
    };
    await withMonitor(
      answer,
      async (client) => {
        await client.execute("migrate-recover", { uri: "x" }, { outOfBand: true });
      },
      true,
    );
    expect(requests).toEqual([
      { execute: "qmp_capabilities", arguments: { enable: ["oob"] }, id: 1 },
      { "exec-oob": "migrate-recover", arguments: { uri: "x" }, id: 2 },
    ]);
  });

  test("fails what is under way when the monitor goes", async () => {
    const answer = ({ execute, id }: Request): object[] =>
      execute === "qmp_capabilities" ? [{ return: {}, id }] : [];
    await withMonitor(answer, async (client) => {
      await expect(client.execute("quit")).rejects.toThrow("has closed the connection");
      await expect(client.execute("again")).rejects.toThrow("has closed the connection");
      await expect(client.waitForEvent("SHUTDOWN")).rejects.toThrow("has closed the connection");
    });
  });
});
