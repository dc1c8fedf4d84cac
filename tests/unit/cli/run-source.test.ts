/** How a send that has failed ends, whatever the operator does while it is still found out why. */
import { expect, spyOn, test } from "bun:test";
import { once } from "node:events";
import { mkdirSync, readdirSync } from "node:fs";
import { createServer } from "node:net";
import type { Output } from "../../../src/commands/common.ts";
import { Interrupts } from "../../../src/commands/interrupts.ts";
import { SourceRun } from "../../../src/commands/run-source.ts";
import type { SourceEnd } from "../../../src/commands/source-job.ts";
import { openStoredGuest } from "../../../src/commands/stored-guest.ts";
import { Journal } from "../../../src/journal/journal.ts";
import { writeRecord } from "../../../src/journal/record.ts";
import { TlsBridge } from "../../../src/threads/tls-bridge.ts";
import { LONG_TEST_MS } from "../../helpers/deadline.ts";
import { filledPage, KeptGuest } from "../../helpers/kept-guest.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const SILENT: Output = {
  page: false,
  events: { emit: () => undefined },
  warn: () => undefined,
  startProgress: () => ({ stop: () => undefined }),
  finish: () => undefined,
};

const OPTIONS = {
  switchover: { kind: "now" },
  ...{ maxBandwidth: undefined, maxPostcopyBandwidth: undefined, downtimeLimit: 300 },
  compress: "off",
  ...{
    channels: { count: 1, named: false },
    preempt: false,
    tls: undefined,
    tlsHostname: undefined,
  },
  ...{ connectTimeout: 0, recoverTimeout: 0, linkTimeout: 30_000, insecure: false, json: false },
  ...{ noRecord: true, noReplay: true, replayLimit: undefined },
} as const;

/** Sends a kept guest to somebody who hangs up; `meanwhile` is called while it is asked what TLS knows of that. */
async function sendInVain(
  place: TemporaryDirectory,
  interrupts: Interrupts,
  meanwhile: (entries: readonly string[]) => void,
): Promise<SourceEnd> {
  const [directory, entries] = [place.file("guest"), place.file("journal")];
  mkdirSync(directory);
  const kept = new KeptGuest(directory, [{ name: "pc.ram", length: 4096, pageSize: 4096 }]);
  kept.store(kept.precopy, 0, 0, filledPage(1));
  kept.finish();
  const peer = { kind: "address", text: "somebody" } as const;
  const identity = { kind: "stored", path: directory, content: "one" } as const;
  const record = Journal.open(entries).record(identity, peer);
  // As it is where the entry comes before the connection.
  writeRecord(record, "committing");
  const bridge = new TlsBridge();
  using _ = spyOn(bridge, "failure").mockImplementation(() => {
    meanwhile(readdirSync(entries));
    return Promise.resolve(undefined);
  });
  await using server = createServer((connection) => void connection.destroy());
  const path = place.file("somebody");
  await once(server.listen(path), "listening");
  const addresses = [{ family: "unix" as const, path }];
  const route = { kind: "connect" as const, addresses, patienceMs: 0 };
  const stored = await openStoredGuest({ kind: "snapshot", directory }, OPTIONS, SILENT);
  const run = new SourceRun({
    ...{ ...stored, options: OPTIONS, output: SILENT, interrupts, record, noted: true },
    ...{ peerText: "somebody", destination: { route, preempt: false, bridge } },
  });
  return await run.run();
}

test(
  "a signal while it is found out why a send failed changes nothing of how that ends",
  async () => {
    await using place = new TemporaryDirectory("late");
    using interrupts = new Interrupts();
    const exits: unknown[] = [];
    using _ = spyOn(process, "exit").mockImplementation((code) => {
      exits.push(code);
      throw new Error("the process would have ended");
    });
    let noted: readonly string[] = ["it was not asked"];
    const end = await sendInVain(place, interrupts, (entries) => {
      noted = entries;
      process.emit("SIGINT");
    });
    // Should somebody insist, or kill it: the guest never left, and nothing else is noted of it.
    expect(noted).toEqual([]);
    expect(exits).toEqual([]);
    expect(end).toMatchObject({ place: "source", failure: { exitCode: 1 } });
    expect(end.report.outcome).toBe("failed");
    expect(interrupts.interrupted).toBe(false);
    // The one that came counts: the next one insists, with the exit code of the failure.
    expect(() => process.emit("SIGINT")).toThrow("would have ended");
    expect(exits).toEqual([1]);
  },
  LONG_TEST_MS,
);
