/** Storage that cannot be written to, or is in use: what can be done all the same, and what is said. */
import { expect } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";

import {
  bytesOf,
  eof,
  HAND_MADE_PAGES,
  opening,
  page,
  ramEnd,
  ramStart,
  unknownDevice,
} from "../helpers/hand-made-stream.ts";
import { filledPage, KeptGuest } from "../helpers/kept-guest.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import { needStrace, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import type { Need } from "../helpers/need.ts";
import { postcopyCommand, run } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { withFaults } from "../helpers/traced-calls.ts";

function needMounts(): Need {
  const allowed = Bun.spawnSync(["unshare", "--mount", "true"]).success;
  return { what: "a mount namespace", missing: allowed ? undefined : "run as root" };
}

const storageTest = requireOrSkip(needUserfaultfd(), needStrace(), needMounts());

/** Words before a command that may read `path`, and not write there. */
function withReadOnly(path: string): string[] {
  const script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"';
  return ["unshare", "--mount", "sh", "-c", script, "sh", path];
}

/** A stream as QEMU saves one, with a page of data in each of its places. */
function savedStream(file: string): void {
  const records = Array.from({ length: HAND_MADE_PAGES }, (_, n) => page(n * 4096, n + 1));
  const bytes = bytesOf(
    opening("pc"),
    ramStart(),
    ramEnd(...records),
    unknownDevice(1, "cpu"),
    eof,
  );
  writeFileSync(file, bytes);
}

storageTest(
  "read-only media: a snapshot is served from there, and none is kept there",
  async () => {
    await using directory = new TemporaryDirectory("read-only");
    const path = directory.file("guest");
    mkdirSync(path);
    const kept = new KeptGuest(path, [{ name: "pc.ram", length: 64 * 4096, pageSize: 4096 }]);
    kept.guest.configure({ machine: "pc" });
    for (let n = 0; n < 64; n++) kept.store(kept.precopy, 0, n, filledPage(n + 1));
    kept.finish();
    const before = withReadOnly(directory.path);

    await using target = new TemporaryDirectory("target");
    await using dest = await startDest({ guest: `snapshot:${target.file("guest")}` });
    await using source = startSource({ to: dest.peer, guest: `snapshot:${path}`, before });
    const [sent, got] = await Promise.all([source.end(), dest.end()]);
    expect({ exitCode: sent.exitCode, stderr: sent.stderr }).toMatchObject({ exitCode: 0 });
    expect(got.report.snapshot?.pagesStored).toBe(64);
    expect(readdirSync(path)).not.toContain("working-set.bin");

    mkdirSync(directory.file("empty"));
    for (const name of ["new", "empty"]) {
      const words = ["dest", "--guest", `snapshot:${directory.file(name)}`, "--listen", "fd:999"];
      const { exitCode, stderr } = await run([...before, ...postcopyCommand(...words)]);
      expect(exitCode).toBe(2);
      expect(stderr).toContain(
        `The snapshot directory ${directory.file(name)} cannot be used: EROFS`,
      );
    }
  },
);

/** Serves a saved stream to a destination that keeps it, under conditions; what the source said. */
async function serve(directory: TemporaryDirectory, before: readonly string[]): Promise<string> {
  await using target = new TemporaryDirectory("target");
  await using dest = await startDest({ guest: `snapshot:${target.file("guest")}` });
  const guest = `stream:${directory.file("saved")}`;
  await using source = startSource({ to: dest.peer, guest, before });
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect({ exitCode: sent.exitCode, stderr: sent.stderr }).toMatchObject({ exitCode: 0 });
  expect(got.report.snapshot?.pagesStored).toBe(HAND_MADE_PAGES);
  expect(readdirSync(directory.path)).toEqual(["saved"]);
  const warning = sent.events.find((event) => event.event === "warning");
  expect(warning).toMatchObject({ code: "INDEX_NOT_KEPT" });
  return warning?.message ?? "";
}

storageTest("a saved stream is served where no index can be kept", async () => {
  await using directory = new TemporaryDirectory("saved");
  const file = directory.file("saved");
  savedStream(file);
  expect(await serve(directory, withReadOnly(directory.path))).toBe(
    `The index of ${file} cannot be kept beside it`,
  );
  const draft = `${file}.postcopy-index.tmp`;
  const full = withFaults(["pwrite64:error=ENOSPC:when=1"], { paths: [draft] });
  expect(await serve(directory, full)).toContain(`(${draft}) failed: ENOSPC`);
});

storageTest("no room for what is unpacked: said before anybody is connected to", async () => {
  await using directory = new TemporaryDirectory("packed");
  const file = directory.file("saved");
  savedStream(file);
  writeFileSync(file, Bun.gzipSync(readFileSync(file)));
  const draft = `${file}.postcopy-index.tmp`;
  const before = withFaults(["pwrite64:error=ENOSPC:when=3"], { paths: [draft] });
  await using source = startSource({ to: "tcp:127.0.0.1:1", guest: `stream:${file}`, before });
  const { exitCode, error } = await source.end();
  expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "NO_SPACE" });
  expect(error?.message).toContain(`pwrite(${draft}) failed: ENOSPC, no space left on device`);
  expect(error?.hints.join()).toContain("free space beside the file; or set TMPDIR");
  expect(readdirSync(directory.path)).toEqual(["saved"]);
});

storageTest("a saved stream that the disk does not give: said with the place in it", async () => {
  await using directory = new TemporaryDirectory("unread");
  const file = directory.file("saved");
  savedStream(file);
  // It is looked into at 64 places, read once to see what it is, and then again for its pages.
  const before = withFaults(["pread64:error=EIO:when=66+"], { paths: [file] });
  await using source = startSource({ to: "tcp:127.0.0.1:1", guest: `stream:${file}`, before });
  const { exitCode, error } = await source.end();
  expect({ exitCode, code: error?.code }).toEqual({ exitCode: 1, code: "CANNOT_READ" });
  expect(error?.message).toMatch(/saved cannot be read: pread\(\d+ bytes at \d+\) failed: EIO/);
  expect(readdirSync(directory.path)).toEqual(["saved"]);
});

storageTest("a directory that a guest is just received in: a reader is told", async () => {
  await using directory = new TemporaryDirectory("busy");
  const path = directory.file("guest");
  await using _dest = await startDest({ guest: `snapshot:${path}` });
  for (const words of [
    ["source", "--guest", `snapshot:${path}`, "--to", "tcp:127.0.0.1:1"],
    ["analyze", path],
  ]) {
    const { exitCode, stderr } = await run(postcopyCommand(...words));
    expect(exitCode).toBe(2);
    expect(stderr).toContain(`${path} is not a snapshot`);
    expect(stderr).toContain("another process is receiving a guest there: wait until it is whole");
  }
  expect(existsSync(path)).toBe(true);
});
