/**
 * A capture that ends at any of its system calls, by kill -9 or with the power: what it leaves is a
 * whole snapshot, or none of which the rest can be had, or clearly none; and never a wrong one.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { cpSync, existsSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { openSnapshot } from "../../../src/guests/snapshot/open.ts";
import { prepareDirectory } from "../../../src/guests/snapshot/directory.ts";
import { KeptGuest } from "../../helpers/kept-guest.ts";
import { expectWhole, LATE_SETUP, sendEarly, sendLate } from "../../helpers/late-pages.ts";
import { needStrace, requireOrSkip } from "../../helpers/need.ts";
import { PROJECT_ROOT, run } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";
import { readCalls, traced, withFaults } from "../../helpers/traced-calls.ts";
import type { TracedCall } from "../../helpers/traced-calls.ts";

const PAGE = 4096;
const straceTest = requireOrSkip(needStrace());
const FIXTURE = join(PROJECT_ROOT, "tests", "fixtures", "keep-guest.ts");

/** The capture of a small guest as a program. */
function capture(directory: string): string[] {
  return [process.execPath, FIXTURE, directory];
}

let place: TemporaryDirectory;
beforeAll(() => {
  place = new TemporaryDirectory("killed");
});
afterAll(() => place[Symbol.asyncDispose]());

/** Names of the files that a manifest, or what stands for one, says are there. */
const NAMED = ["package.bin", "ram-0.bin", "ram-0.crc32", "ram-1.bin", "ram-1.crc32"];

/** Index of the last call that fits; it must be there. */
function lastOf(calls: readonly TracedCall[], path: string, ...names: string[]): number {
  const at = calls.findLastIndex((call) => names.includes(call.name) && call.paths.includes(path));
  expect(at, `${names.join(" or ")} of ${path}`).toBeGreaterThanOrEqual(0);
  return at;
}

/** All that was written of these files is durable, and so are their names; the directory is, too. */
function expectDurable(calls: readonly TracedCall[], directory: string, files: string[]): void {
  for (const file of files) {
    const path = join(directory, file);
    const written = lastOf(calls, path, "write", "pwrite64", "pwritev", "ftruncate", "fallocate");
    expect(lastOf(calls, path, "fsync"), `fsync of ${file}`).toBeGreaterThan(written);
    expect(lastOf(calls, directory, "fsync")).toBeGreaterThan(written);
  }
}

straceTest(
  "what a name stands for is durable before the name, and the name behind it",
  async () => {
    const [directory, trace] = [place.file("order"), place.file("trace")];
    expect(await run([...traced(trace), ...capture(directory)])).toMatchObject({ exitCode: 0 });
    expectWhole(directory);
    const calls = readCalls(trace, directory);
    const renames = calls.flatMap(({ name, text }, at) =>
      name === "rename" ? [{ at, text }] : [],
    );
    expect(renames.map(({ text }) => /(\w+)\.json"\)/.exec(text)?.[1])).toEqual([
      "arrival",
      "manifest",
    ]);
    const [arrival, manifest] = renames.map(({ at }) => at);
    // Of a guest that is taken over all but its pages is durable: those prove themselves.
    const sums = NAMED.filter((name) => !name.endsWith(".bin") || name === "package.bin");
    expectDurable(calls.slice(0, arrival), directory, [...sums, "arrival.json.tmp"]);
    expectDurable(calls.slice(0, manifest), directory, [...NAMED, "manifest.json.tmp"]);
    for (const at of [arrival, manifest]) {
      expect(calls[(at ?? 0) + 1]).toMatchObject({ name: "fsync", paths: [directory] });
    }
    // Behind its name a snapshot is not touched.
    const after = calls.slice((manifest ?? 0) + 2).map(({ name, paths }) => [name, ...paths]);
    expect(after.map(([name, path = ""]) => [name, path.slice(directory.length + 1)])).toEqual([
      ["unlink", "arrival.json"],
      ["unlink", "arrival.json.tmp"],
    ]);
  },
);

straceTest("the same of a guest that completes in precopy", async () => {
  const [directory, trace] = [place.file("precopy"), place.file("trace")];
  const command = [...traced(trace), ...capture(directory), "in precopy"];
  expect(await run(command)).toMatchObject({ exitCode: 0 });
  expectWhole(directory);
  const calls = readCalls(trace, directory);
  const renames = calls.flatMap(({ name }, at) => (name === "rename" ? [at] : []));
  expect(renames).toHaveLength(1);
  expectDurable(calls.slice(0, renames[0]), directory, [...NAMED, "manifest.json.tmp"]);
  expect(calls[(renames[0] ?? 0) + 1]).toMatchObject({ name: "fsync", paths: [directory] });
});

/** What a capture left that was ended; it is brought to its end where that is possible. */
function judge(directory: string): "whole" | "resumed" | "nothing" {
  if (existsSync(join(directory, "manifest.json"))) {
    expectWhole(directory);
    return "whole";
  }
  expect(() => openSnapshot(directory)).toThrow("is not a snapshot");
  if (!existsSync(join(directory, "arrival.json"))) {
    expect(prepareDirectory(directory)).toBe("half a guest");
    return "nothing";
  }
  expect(() => prepareDirectory(directory)).toThrow("holds a guest that was taken over in part");
  const kept = new KeptGuest(directory);
  sendLate(kept, kept.missing);
  kept.guest.finish(() => {});
  expectWhole(directory);
  return "resumed";
}

/** Which calls of each kind a capture is ended at. */
const ENDS = [
  { call: "fsync", step: 4 },
  { call: "rename", step: 1 },
  { call: "write", step: 4 },
  { call: "pwrite64", step: 11 },
  { call: "pwritev", step: 4 },
];

for (const { call, step } of ENDS) {
  straceTest(`kill -9 at any ${call}: whole, or to be resumed, or clearly nothing`, async () => {
    const found = new Set<string>();
    for (let when = 1; ; when += step) {
      const directory = place.file(`${call}-${when}`);
      const files = [...NAMED, "manifest.json.tmp", "arrival.json.tmp", "arrival.json"];
      const paths = [directory, ...files.map((name) => join(directory, name))];
      const faults = withFaults([`${call}:signal=KILL:when=${when}`], { paths });
      const { exitCode } = await run([...faults, ...capture(directory)]);
      const left = judge(directory);
      found.add(left);
      if (exitCode === 0) break;
      expect(exitCode).not.toBe(1);
    }
    expect([...found]).toEqual(["nothing", "resumed", "whole"]);
  });
}

/** Calls that fail, and what is said of it. All of it is before anything has its final name. */
const FAILURES = [
  { fault: "fallocate:error=ENOSPC", file: "ram-1.crc32", code: "NO_SPACE" },
  { fault: "ftruncate:error=EFBIG", file: "ram-1.bin", code: "CANNOT_STORE" },
  { fault: "pwrite64:error=EDQUOT", file: "ram-0.bin", code: "NO_SPACE" },
  { fault: "pwrite64:error=EIO", file: "ram-0.crc32", code: "CANNOT_STORE" },
  { fault: "pwritev:retval=0", file: "ram-1.bin", code: "CANNOT_STORE" },
  { fault: "write:error=ENOSPC", file: "ram-0.crc32", code: "NO_SPACE" },
  { fault: "write:error=ENOSPC", file: "package.bin", code: "NO_SPACE" },
  { fault: "fsync:error=EIO", file: "ram-1.crc32", code: "CANNOT_STORE" },
  { fault: "write:error=EDQUOT", file: "manifest.json.tmp", code: "NO_SPACE" },
  { fault: "fsync:error=EIO", file: "manifest.json.tmp", code: "CANNOT_STORE" },
  { fault: "rename:error=EROFS", file: "manifest.json.tmp", code: "CANNOT_STORE" },
];

for (const { fault, file, code } of FAILURES) {
  straceTest(`${fault} of ${file}: an error with its name, and no snapshot`, async () => {
    const directory = place.file(`${fault}-${file}`);
    const faults = withFaults([`${fault}:when=1`], { paths: [join(directory, file)] });
    const { exitCode, stderr } = await run([...faults, ...capture(directory)]);
    expect(exitCode).toBe(1);
    const [call = "", errno = "EIO"] = fault.split(/:error=|:retval=0/).filter(Boolean);
    const name = file.replace("manifest.json.tmp", call === "rename" ? "manifest.json" : file);
    const said = `${call.replace("pwrite64", "pwrite")}\\(${directory}/${name}.*\\) failed: ${errno},`;
    expect(stderr).toMatch(new RegExp(said));
    expect(stderr).toContain(`"code":"${code}"`);
    expect(stderr).toContain('"hint":"');
    expect(["nothing", "resumed"]).toContain(judge(directory));
  });
}

straceTest(
  "EIO of the directory behind the last rename: whole, and not said to be durable",
  async () => {
    const directory = place.file("unsure");
    // Of the directory itself: around the name of the arrival, and around that of the snapshot.
    const faults = withFaults(["fsync:error=EIO:when=4"], { paths: [directory] });
    const { exitCode, stderr } = await run([...faults, ...capture(directory)]);
    expect(exitCode).toBe(1);
    expect(stderr).toContain("failed: EIO");
    expect(judge(directory)).toBe("whole");
  },
);

describe("power that fails while pages come", () => {
  test("any of what was written since is lost: just those pages are asked for again", () => {
    const original = place.file("power");
    prepareDirectory(original);
    const taken = new KeptGuest(original, LATE_SETUP);
    sendEarly(taken);
    const late = taken.missing;
    const before = place.file("before");
    cpSync(original, before, { recursive: true });
    sendLate(taken, late);
    let copies = 0;
    const lost = fc.array(fc.record({ page: fc.boolean(), sum: fc.boolean() }), {
      minLength: late.length,
      maxLength: late.length,
    });
    fc.assert(
      fc.property(lost, (losses) => {
        const directory = place.file(`lost-${copies++}`);
        cpSync(original, directory, { recursive: true });
        for (const [n, loss] of losses.entries()) {
          const { index = 0, page = 0 } = late[n] ?? {};
          if (loss.page) putBack(before, directory, `ram-${index}.bin`, page * PAGE, PAGE);
          if (loss.sum) putBack(before, directory, `ram-${index}.crc32`, page * 4, 4);
        }
        const kept = new KeptGuest(directory);
        expect(kept.missing).toEqual(late.filter((_, n) => losses[n]?.page || losses[n]?.sum));
        sendLate(kept, kept.missing);
        kept.guest.finish(() => {});
        expectWhole(directory);
      }),
      { numRuns: 15 },
    );
  });
});

/** Gives a range of a file the content that it has in another directory. */
function putBack(from: string, to: string, name: string, at: number, length: number): void {
  const bytes = readFileSync(join(from, name)).subarray(at, at + length);
  writeSync(openSync(join(to, name), "r+"), bytes, 0, length, at);
}
