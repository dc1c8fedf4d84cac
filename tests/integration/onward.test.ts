/** A guest that moves from A to B and from there to C, and what becomes of it when C is not there. */
import { expect } from "bun:test";

import type { DestReport, Report, SourceReport } from "../../src/report/report.ts";
import { HandMadeDestination } from "../helpers/hand-made-peer.ts";
import {
  expectAgreement,
  NO_RECOVERY,
  pages,
  SMALL_GUEST,
  startDest,
  startSource,
} from "../helpers/migration.ts";
import type { DestRole, RoleEnd } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { postcopyCommand, run } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");
const BUSY = "stress:size=16MiB,rate=unlimited,workers=3,discard=0.01,duration=100ms";
const ROUNDS = ["--switchover", "rounds=1"] as const;

function reportsOf(end: RoleEnd<DestReport>): Report[] {
  return end.events.flatMap((event) => (event.event === "report" ? [event.report] : []));
}

migrationTest("A to B to C: the guest is whole at C", async () => {
  await using c = await startDest();
  await using b = await startDest({ flags: ["--onward", c.peer, ...ROUNDS] });
  await using a = startSource({ to: b.peer, guest: BUSY, flags: ["--switchover", "now"] });
  const [first, middle, last] = await Promise.all([a.end(), b.end(), c.end()]);
  const ends = [first, middle, last].map(({ exitCode, stderr }) => ({ exitCode, stderr }));
  expect(ends).toMatchObject([{ exitCode: 0 }, { exitCode: 0 }, { exitCode: 0 }]);
  const [arrival, departure, ...others] = reportsOf(middle);
  expect(others).toEqual([]);
  expect(arrival).toMatchObject({ role: "dest", outcome: "completed", audit: null });
  expect(departure).toMatchObject({ role: "source", outcome: "completed" });
  expectAgreement(first.report, arrival as DestReport, COUNT);
  expectAgreement(departure as SourceReport, last.report, COUNT);
  expect((departure as SourceReport).rounds).toHaveLength(1);
  // The model repeats the whole life of the guest, on all three hosts.
  expect(last.report.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
});

/** Sends a guest to `b`, which cannot send it on; B then ends on its own. */
async function strand(b: DestRole): Promise<RoleEnd<DestReport>> {
  await using a = startSource({ to: b.peer, guest: BUSY, flags: ROUNDS });
  const [first, end] = await Promise.all([a.end(), b.end()]);
  expect(first.exitCode).toBe(0);
  expect(end.stderr).toContain("The guest could not be sent on, and goes on here");
  expect(reportsOf(end).at(-1)).toMatchObject({
    role: "dest",
    outcome: "completed",
    audit: { pagesChecked: COUNT, pagesWrong: 0 },
  });
  return end;
}

migrationTest("C is not there: the guest goes on at B", async () => {
  await using directory = new TemporaryDirectory("onward");
  const onward = ["--onward", `unix:${directory.file("nobody")}`, "--connect-timeout", "100ms"];
  await using b = await startDest({ flags: onward });
  const { exitCode, error } = await strand(b);
  expect({ exitCode, error }).toMatchObject({ exitCode: 1, error: { code: "CANNOT_CONNECT" } });
});

migrationTest("the way to C is closed: the guest goes on at B", async () => {
  await using b = await startDest({ flags: ["--onward", "fd:77"] });
  const { exitCode, error } = await strand(b);
  expect({ exitCode, error }).toMatchObject({ exitCode: 2, error: { code: "BAD_PEER" } });
});

migrationTest("C goes away in precopy: the guest goes on at B", async () => {
  await using c = await startDest();
  const slow = ["--switchover", "rounds=1000", "--max-bandwidth", "4MiB/s"];
  await using b = await startDest({ flags: ["--onward", c.peer, ...slow] });
  const killed = b
    .event("progress", ({ role, phase }) => role === "source" && phase === "precopy")
    .then(() => c.program.kill("SIGKILL"));
  const { exitCode, error } = await strand(b);
  await killed;
  expect(exitCode).toBe(1);
  expect(error?.message).toStartWith("The migration failed; the guest goes on here");
});

migrationTest("C goes away in postcopy: B says that the guest is there", async () => {
  await using c = await startDest();
  const slow = ["--switchover", "now", "--max-postcopy-bandwidth", "1MiB/s", ...NO_RECOVERY];
  await using b = await startDest({ flags: ["--onward", c.peer, ...slow] });
  await using a = startSource({ to: b.peer, guest: SMALL_GUEST, flags: ROUNDS });
  await c.event("running");
  c.program.kill("SIGKILL");
  const [first, end] = await Promise.all([a.end(), b.end()]);
  expect(first.exitCode).toBe(0);
  expect(end.exitCode).toBe(1);
  expect(end.error?.message).toContain("the guest is at the destination");
  expect(reportsOf(end).at(-1)).toMatchObject({ role: "source", outcome: "failed" });
});

migrationTest("Ctrl-C while it is sent on: it stays at B, whole", async () => {
  await using c = await HandMadeDestination.open();
  await using b = await startDest({ flags: ["--onward", c.peer, "--switchover", "now"] });
  await using a = startSource({ to: b.peer, guest: SMALL_GUEST, flags: ROUNDS });
  // It is connected, and waits for an answer that does not come.
  await c.accept();
  expect((await a.end()).exitCode).toBe(0);
  b.program.kill("SIGINT");
  const end = await b.end();
  expect(end.exitCode).toBe(130);
  expect(reportsOf(end).at(-1)).toMatchObject({
    role: "dest",
    audit: { pagesChecked: COUNT, pagesWrong: 0 },
  });
});

migrationTest("an unencrypted way onward is refused before a guest is here", async () => {
  const words = ["dest", "--guest", "stress", "--listen", "tcp:127.0.0.1:0"];
  const end = await run(postcopyCommand(...words, "--onward", "tcp:192.0.2.1:4444"));
  expect(end).toMatchObject({ exitCode: 2, stdout: "" });
  expect(end.stderr).toStartWith("postcopy: tcp:192.0.2.1:4444 is not on the loopback");
  expect(end.stderr).toContain("hint: add --insecure if the network is trusted");
});
