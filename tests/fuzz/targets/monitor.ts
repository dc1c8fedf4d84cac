/** A monitor whose answers are damaged. */
import { join } from "node:path";

import { QmpClient } from "../../../src/qmp/client.ts";
import {
  capabilitiesSchema,
  migrateSchema,
  parametersSchema,
  statusSchema,
} from "../../../src/qmp/messages.ts";
import { judge } from "../target.ts";
import type { Place, Target, Verdict } from "../target.ts";

const TIMEOUT_MS = 30;

async function runMonitor(bytes: Uint8Array, place: Place): Promise<Verdict> {
  const path = join(place.directory, "monitor");
  const lines = Buffer.from(bytes)
    .toString("latin1")
    .split(/(?<=\n)/);
  const next = (socket: Bun.Socket): void => {
    const line = lines.shift();
    if (line === undefined) socket.end();
    else socket.write(Buffer.from(line, "latin1"));
  };
  const server = Bun.listen({
    unix: path,
    socket: { open: next, data: next, error: () => undefined },
  });
  let client: QmpClient | undefined;
  try {
    client = await QmpClient.connect(path, { greetingTimeoutMs: TIMEOUT_MS });
    const options = { timeoutMs: TIMEOUT_MS };
    await client.execute("query-status", {}, statusSchema, options);
    await client.execute("query-migrate-capabilities", {}, capabilitiesSchema, options);
    await client.execute("query-migrate-parameters", {}, parametersSchema, options);
    await client.execute("query-migrate", {}, migrateSchema, options);
    return "accepted";
  } catch (error) {
    return judge(error);
  } finally {
    client?.close();
    server.stop(true);
  }
}

export const MONITOR_TARGETS: readonly Target[] = [
  { name: "monitor", share: 4, takes: (name) => name.startsWith("qmp."), run: runMonitor },
];
