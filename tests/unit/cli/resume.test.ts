/** `dest --resume` that ends before it has looked through what is there: nothing of it is lost. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import type { Output } from "../../../src/commands/common.ts";
import { Interrupts } from "../../../src/commands/interrupts.ts";
import { DestRun } from "../../../src/commands/run-dest.ts";
import { readArrival } from "../../../src/guests/snapshot/arrival-file.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { FakeWorker, fakeWorkers } from "../../helpers/fake-worker.ts";
import { KeptGuest } from "../../helpers/kept-guest.ts";
import { LATE_SETUP, sendEarly } from "../../helpers/late-pages.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

/** Output that keeps the warnings. */
function silentOutput(): { output: Output; warnings: string[] } {
  const warnings: string[] = [];
  const output: Output = {
    page: false,
    events: { emit: () => undefined },
    warn: (code, message) => void warnings.push(`${code}: ${message}`),
    startProgress: () => ({ stop: () => undefined }),
    finish: () => undefined,
  };
  return { output, warnings };
}

/** Resumes the guest in `directory` with threads that do nothing, and which `end` ends. */
async function resume(directory: string, end: () => void): Promise<string[]> {
  using _ = fakeWorkers();
  using interrupts = new Interrupts();
  const { output, warnings } = silentOutput();
  const run = await DestRun.open({
    guest: { kind: "snapshot", directory, takenOver: readArrival(directory) },
    guestText: `snapshot in ${directory}`,
    peer: { kind: "tcp", host: "127.0.0.1", port: 0 },
    security: { allow: [], tls: undefined, insecure: false, linkTimeout: 30_000 },
    ...{ lockMemory: false, channels: 1, recoverTimeoutMs: Infinity, linkTimeoutMs: 30_000 },
    ...{ output, interrupts },
  });
  const received = run.receive().then(
    () => "received",
    () => "failed",
  );
  for (const worker of FakeWorker.made) worker.say({ kind: "ready" });
  await waitUntil(() => FakeWorker.made.some(({ tasks }) => tasks.length > 0), "a task");
  end();
  expect(await received).toBe("failed");
  run.sayWhere();
  return warnings;
}

function failIncoming(): void {
  const error = { name: "Error", code: "X", message: "out of luck", exitCode: 1 };
  const incoming = FakeWorker.made.find(({ tasks }) => tasks.length > 0);
  incoming?.say({ kind: "failed", error });
}

async function expectLeft(end: () => void): Promise<void> {
  await using place = new TemporaryDirectory("resume");
  sendEarly(new KeptGuest(place.path, LATE_SETUP));
  const warnings = await resume(place.path, end);
  expect(existsSync(place.file("arrival.json"))).toBe(true);
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toStartWith(
    "GUEST_AT_SOURCE: What is there of the guest could not be looked through. Its source waits",
  );
}

test("one that fails leaves the guest to the next one", async () => {
  await expectLeft(failIncoming);
});

test("one that is interrupted leaves the guest to the next one", async () => {
  await expectLeft(() => {
    process.emit("SIGTERM", "SIGTERM");
    failIncoming();
  });
});
