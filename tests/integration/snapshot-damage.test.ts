/**
 * A snapshot that is not what it was: whatever is wrong is named with its file, and nothing wrong
 * is ever sent.
 */
import { afterAll, beforeAll, describe, expect } from "bun:test";
import { cpSync, existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";

import { LONG_TEST_MS } from "../helpers/deadline.ts";
import { HandMadeDestination } from "../helpers/hand-made-peer.ts";
import { NO_RECOVERY, startDest, startSource } from "../helpers/migration.ts";
import { needStrace, needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { answerAsQemu } from "../helpers/stuck-source.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { withFaults } from "../helpers/traced-calls.ts";

const need = needUserfaultfd();
const snapshotTest = requireOrSkip(need);

/** A page that the guest has written and that is not among the first to be sent. */
const PAGE = 1234;
const PAGE_BYTES = 4096;

describe("a damaged snapshot", () => {
  const directory = new TemporaryDirectory("damage");
  const original = directory.file("original");

  beforeAll(async () => {
    if (need.missing !== undefined) return;
    await using dest = await startDest({ guest: `snapshot:${original}` });
    const guest = "stress:size=8MiB,zero=0,duration=50ms";
    await using source = startSource({ to: dest.peer, guest, flags: ["--switchover", "now"] });
    await Promise.all([source.end(), dest.end()]);
  }, LONG_TEST_MS);

  afterAll(async () => {
    await directory[Symbol.asyncDispose]();
  });

  /** A copy of the snapshot to damage. */
  function copy(name: string): { path: string; file: (name: string) => string } {
    const path = directory.file(name);
    cpSync(original, path, { recursive: true });
    return { path, file: (inside) => `${path}/${inside}` };
  }

  /** Changes one byte of a file. */
  function flip(file: string, at: number): void {
    const bytes = readFileSync(file);
    bytes[at] = (bytes[at] ?? 0) ^ 1;
    writeFileSync(file, bytes);
  }

  /** What a source says that is to serve it. It must not get as far as to connect to anybody. */
  async function refusalOf(path: string): Promise<string> {
    await using nobody = await HandMadeDestination.open();
    await using source = startSource({ guest: `snapshot:${path}`, to: nobody.peer });
    const { exitCode, error, events } = await source.end();
    expect({ exitCode, error }).toMatchObject({ exitCode: 1, error: { code: "DAMAGED_SNAPSHOT" } });
    expect(events.map(({ event }) => event)).toEqual(["error"]);
    return error?.message ?? "";
  }

  /** Edits the manifest as JSON. */
  function edit(file: string, change: (manifest: Record<string, unknown>) => void): void {
    const manifest = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
    change(manifest);
    writeFileSync(file, JSON.stringify(manifest));
  }

  snapshotTest("a page: named with its file, and never served", async () => {
    const { path, file } = copy("page");
    flip(file("ram-0.bin"), PAGE * PAGE_BYTES + 100);
    await using dest = await startDest({ flags: NO_RECOVERY });
    await using source = startSource({ guest: `snapshot:${path}`, to: dest.peer });
    const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
    expect(sourceEnd.exitCode).toBe(1);
    expect(sourceEnd.error?.message).toContain(
      `the page at ${PAGE * PAGE_BYTES} of ram-0.bin (stress.ram) does not have its checksum`,
    );
    // The guest had begun to run. It ends here, rather than go on with a page that is made up.
    expect(destEnd.exitCode).toBe(1);
    expect(destEnd.report.outcome).toBe("failed");
    expect(destEnd.report.audit).toBeNull();
    expect(existsSync(file("manifest.json"))).toBe(true);
  });

  snapshotTest("a page that is asked for: not served either, and the reason is told", async () => {
    const { path, file } = copy("asked");
    flip(file("ram-0.bin"), PAGE * PAGE_BYTES);
    await using peer = await HandMadeDestination.open();
    const flags = ["--max-postcopy-bandwidth", "64KiB/s"];
    await using source = startSource({ guest: `snapshot:${path}`, to: peer.peer, flags });
    const channel = await peer.accept();
    await answerAsQemu(channel);
    await source.phase("postcopy");
    const start = PAGE * PAGE_BYTES;
    channel.answer({ kind: "pageRequest", block: "stress.ram", start, length: PAGE_BYTES });
    const { exitCode, error } = await source.end();
    expect(exitCode).toBe(1);
    expect(error?.message).toContain(`the page at ${start} of ram-0.bin (stress.ram)`);
    const page = readFileSync(file("ram-0.bin")).subarray(start, start + PAGE_BYTES);
    expect(Buffer.from(channel.received).includes(page)).toBe(false);
  });

  snapshotTest("a file that is cut off while it is served: an error, and no signal", async () => {
    const { path, file } = copy("cut off");
    await using peer = await HandMadeDestination.open();
    const flags = ["--max-postcopy-bandwidth", "64KiB/s"];
    await using source = startSource({ guest: `snapshot:${path}`, to: peer.peer, flags });
    const channel = await peer.accept();
    await answerAsQemu(channel);
    await source.phase("postcopy");
    const start = PAGE * PAGE_BYTES;
    truncateSync(file("ram-0.bin"), start);
    channel.answer({ kind: "pageRequest", block: "stress.ram", start, length: PAGE_BYTES });
    const { exitCode, error } = await source.end();
    expect(exitCode).toBe(1);
    expect(error?.message).toContain(`the page at ${start} of ram-0.bin (stress.ram) is cut off`);
  });

  const faultTest = requireOrSkip(need, needStrace());

  faultTest(
    "a disk that fails while it is served: the guest waits, then has the rest",
    async () => {
      const { path, file } = copy("failing");
      await using dest = await startDest();
      // The device state takes some requests to load; then the guest runs, and asks for more.
      const fault = "pread64:error=EIO:when=60";
      const flags = ["--max-postcopy-bandwidth", "1MiB/s"];
      const before = withFaults([fault], { paths: [file("ram-0.bin")] });
      const [guest, to] = [`snapshot:${path}`, dest.peer];
      await using source = startSource({ guest, to, before, flags });
      const failed = await source.end();
      expect(failed.exitCode).toBe(1);
      const says =
        /the page at \d+ of ram-0\.bin \(stress\.ram\) cannot be read: pread\(.*\/ram-0\.bin, \d+ bytes at \d+\) failed: EIO, input\/output error/;
      expect(failed.error?.message).toMatch(says);
      await dest.phase("paused");
      await using again = startSource({ guest, to, flags: ["--resume"] });
      const [sent, got] = await Promise.all([again.end(), dest.end()]);
      expect([sent.exitCode, got.exitCode]).toEqual([0, 0]);
      expect(got.report.audit?.pagesWrong).toBe(0);
    },
  );

  snapshotTest("the checksums of the pages", async () => {
    const { path, file } = copy("sums");
    flip(file("ram-0.crc32"), 4 * PAGE);
    expect(await refusalOf(path)).toContain("ram-0.crc32 does not have the checksum");
  });

  snapshotTest("the device state", async () => {
    const { path, file } = copy("package");
    flip(file("package.bin"), 50);
    expect(await refusalOf(path)).toContain("package.bin does not have the checksum");
  });

  snapshotTest("RAM that is too short", async () => {
    const { path, file } = copy("short");
    truncateSync(file("ram-0.bin"), 8 * 2 ** 20 - PAGE_BYTES);
    expect(await refusalOf(path)).toContain("ram-0.bin has 8384512 bytes, its block has 8388608");
  });

  snapshotTest("RAM that is gone", async () => {
    const { path, file } = copy("gone");
    rmSync(file("ram-0.bin"));
    expect(await refusalOf(path)).toContain("ram-0.bin cannot be opened");
  });

  snapshotTest("a manifest that is cut off", async () => {
    const { path, file } = copy("cut");
    truncateSync(file("manifest.json"), 100);
    expect(await refusalOf(path)).toContain("manifest.json is not JSON");
  });

  snapshotTest("a manifest of another version", async () => {
    const { path, file } = copy("version");
    edit(file("manifest.json"), (manifest) => (manifest["version"] = 2));
    expect(await refusalOf(path)).toContain("manifest.json is not valid");
  });

  snapshotTest("a manifest that points out of the directory", async () => {
    const { path, file } = copy("outside");
    edit(file("manifest.json"), (manifest) => {
      manifest["package"] = { ...(manifest["package"] as object), file: "../package.bin" };
    });
    expect(await refusalOf(path)).toContain("manifest.json is not valid");
  });
});
