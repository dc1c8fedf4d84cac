/** A stress guest is kept as a snapshot and comes back from it, as often as one likes. */
import { expect } from "bun:test";
import { existsSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { HandMadePeer } from "../helpers/hand-made-peer.ts";
import { WHOLE, bytesOf, opening } from "../helpers/hand-made-stream.ts";
import { Link } from "../helpers/link.ts";
import {
  expectAgreement,
  NO_RECOVERY,
  pages,
  SMALL_GUEST,
  startDest,
  startSource,
} from "../helpers/migration.ts";
import type { RoleEnd } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { postcopyCommand, run } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const snapshotTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");

interface Ends {
  source: RoleEnd<SourceReport>;
  dest: RoleEnd<DestReport>;
}

/** Keeps a guest in a directory. */
async function keep(directory: string, guest: string, flags: readonly string[]): Promise<Ends> {
  await using dest = await startDest({ guest: `snapshot:${directory}` });
  await using source = startSource({ to: dest.peer, guest, flags });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  return { source: sourceEnd, dest: destEnd };
}

/** Brings a guest back. */
async function restore(directory: string, flags: readonly string[] = []): Promise<Ends> {
  await using dest = await startDest();
  const guest = `snapshot:${directory}`;
  await using source = startSource({ to: dest.peer, guest, flags });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  return { source: sourceEnd, dest: destEnd };
}

snapshotTest("kept, then restored twice from the same files", async () => {
  await using directory = new TemporaryDirectory("snapshot");
  const path = directory.file("deep/inside");
  const guest = "stress:size=16MiB,blocks=2,workers=3,rate=unlimited,discard=0.01,duration=100ms";
  const kept = await keep(path, guest, ["--switchover", "rounds=1"]);
  expect([kept.source.exitCode, kept.dest.exitCode]).toEqual([0, 0]);
  expectAgreement(kept.source.report, kept.dest.report, COUNT);
  const { snapshot } = kept.dest.report;
  expect(snapshot?.directory).toBe(path);
  // A quarter of the pages are zeros, which take no room.
  expect(snapshot?.pagesStored).toBeLessThan(0.8 * COUNT);
  expect(snapshot?.bytes).toBeLessThan(0.85 * 16 * 2 ** 20);

  const first = await restore(path, ["--max-postcopy-bandwidth", "8MiB/s"]);
  expect([first.source.exitCode, first.dest.exitCode]).toEqual([0, 0]);
  expectAgreement(first.source.report, first.dest.report, COUNT);
  expect(first.dest.report.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
  // It runs before its memory arrives.
  expect(first.dest.report.pages).toMatchObject({ precopyNormal: 0, missing: COUNT });
  expect(first.source.report.requests.served).toBeGreaterThan(0);
  const { toRunning, toDrained } = first.dest.report.times;
  expect(toRunning).toBeLessThan(toDrained ?? 0);

  const second = await restore(path);
  expect(second.dest.report.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
});

snapshotTest("a pure postcopy is kept as well, and nobody but the owner may read it", async () => {
  await using directory = new TemporaryDirectory("snapshot");
  const path = directory.file("guest");
  const kept = await keep(path, SMALL_GUEST, ["--switchover", "now"]);
  expect([kept.source.exitCode, kept.dest.exitCode]).toEqual([0, 0]);
  const modes = readdirSync(path).map((name) => [name, statSync(join(path, name)).mode & 0o777]);
  expect(Object.fromEntries(modes)).toEqual({
    "manifest.json": 0o600,
    "package.bin": 0o600,
    "ram-0.bin": 0o600,
    "ram-0.crc32": 0o600,
  });
  expect(statSync(path).mode & 0o777).toBe(0o700);
  const { dest } = await restore(path);
  expect(dest.report.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
});

snapshotTest("a guest that ends in precopy cannot be kept, and stays where it is", async () => {
  await using directory = new TemporaryDirectory("snapshot");
  const path = directory.file("guest");
  const guest = "stress:size=16MiB,rate=1MiB/s,duration=100ms";
  const { source, dest } = await keep(path, guest, ["--switchover", "auto"]);
  // The device state came outside of a package, where its end is not known.
  expect(dest).toMatchObject({ exitCode: 1, error: { code: "UNSUPPORTED_DEVICE" } });
  expect(source).toMatchObject({ exitCode: 1, stayed: { pagesChecked: COUNT, pagesWrong: 0 } });
  expect(existsSync(join(path, "manifest.json"))).toBe(false);
});

snapshotTest("half a guest is no snapshot, and is not cleared away by the next", async () => {
  await using directory = new TemporaryDirectory("snapshot");
  const path = directory.file("guest");
  await using dest = await startDest({ guest: `snapshot:${path}`, flags: NO_RECOVERY });
  const flags = ["--switchover", "now", "--max-postcopy-bandwidth", "1MiB/s"];
  await using source = startSource({ to: dest.peer, flags });
  await dest.event("running");
  source.program.kill("SIGKILL");
  const half = await dest.end();
  expect(half).toMatchObject({ exitCode: 1, error: { code: "PEER_CLOSED" } });
  expect(half.stderr).toMatch(/The guest was taken over and is no whole snapshot: [\d,]+ of its/);
  expect(readdirSync(path)).toContain("ram-0.bin");
  expect(readdirSync(path)).not.toContain("manifest.json");

  await using refused = startSource({ guest: `snapshot:${path}`, to: "tcp:127.0.0.1:1" });
  const { exitCode, error } = await refused.end();
  expect({ exitCode, error }).toMatchObject({ exitCode: 2, error: { code: "NO_SNAPSHOT" } });
  expect(error?.message).toStartWith(`${path} is not a snapshot`);
  expect(error?.hints).toEqual([
    `it holds a part of a guest: postcopy dest --guest snapshot:${path} --listen PEER --resume takes the rest`,
  ]);

  const next = await refusal(path);
  expect(next.exitCode).toBe(2);
  expect(next.stderr).toStartWith(
    `postcopy: ${path} holds a guest that was taken over in part\n  hint: if its source still waits, --resume takes the rest`,
  );
  expect(readdirSync(path)).toContain("ram-0.bin");
});

snapshotTest(
  "the guest of another machine is kept, but not run by a stress destination",
  async () => {
    await using directory = new TemporaryDirectory("snapshot");
    const path = directory.file("guest");
    await using keeper = await startDest({ guest: `snapshot:${path}` });
    await using pc = await HandMadePeer.connect(keeper.peer);
    pc.send(bytesOf(opening("pc-i440fx-7.2"), ...WHOLE.slice(1)));
    const kept = await keeper.end();
    expect({ exitCode: kept.exitCode, stderr: kept.stderr }).toMatchObject({ exitCode: 0 });
    await pc.otherEnd();
    expect(pc.messages.at(-1)).toEqual({ kind: "shut", status: 0 });

    const { source, dest } = await restore(path);
    expect(dest).toMatchObject({ exitCode: 1, error: { code: "WRONG_GUEST" } });
    expect(dest.error?.message).toContain('a guest of machine type "pc-i440fx-7.2"');
    expect(source).toMatchObject({ exitCode: 1, error: { code: "MIGRATION_FAILED" } });
    expect(source.error?.message).toStartWith("The migration failed; what was kept is as it was");
  },
);

/** What a destination says that is to receive into a directory which it cannot take. */
async function refusal(path: string): Promise<{ exitCode: number | null; stderr: string }> {
  const words = ["dest", "--guest", `snapshot:${path}`, "--listen", "tcp:127.0.0.1:0"];
  return await run(postcopyCommand(...words));
}

snapshotTest("a directory into which a guest is just received is left alone", async () => {
  await using directory = new TemporaryDirectory("snapshot");
  const path = directory.file("guest");
  await using dest = await startDest({ guest: `snapshot:${path}` });
  await using link = await Link.start(dest.peer);
  link.holdBehind(2 ** 20);
  await using source = startSource({ to: link.uri, flags: ["--switchover", "now"] });
  await dest.event("running");
  const second = await refusal(path);
  link.carryOn();
  expect(second.exitCode).toBe(2);
  expect(second.stderr).toStartWith(
    `postcopy: Another process is receiving a guest in ${path}\n  hint: choose another directory`,
  );
  const ends = await Promise.all([source.end(), dest.end()]);
  expect(ends.map(({ exitCode }) => exitCode)).toEqual([0, 0]);
  const { dest: restored } = await restore(path);
  expect(restored.report.audit).toEqual({ pagesChecked: COUNT, pagesWrong: 0 });
});

snapshotTest("a directory that holds a snapshot, or anything else, is left alone", async () => {
  await using directory = new TemporaryDirectory("snapshot");
  const path = directory.file("guest");
  await keep(path, SMALL_GUEST, ["--switchover", "now"]);
  const before = statSync(join(path, "ram-0.bin")).mtimeMs;
  const whole = await refusal(path);
  expect(whole.exitCode).toBe(2);
  expect(whole.stderr).toStartWith(`postcopy: ${path} already holds a snapshot`);
  expect(statSync(join(path, "ram-0.bin")).mtimeMs).toBe(before);

  writeFileSync(directory.file("letter.txt"), "dear");
  const foreign = await refusal(directory.path);
  expect(foreign.exitCode).toBe(2);
  expect(foreign.stderr).toContain("holds other files");
  expect(existsSync(directory.file("letter.txt"))).toBe(true);
});
