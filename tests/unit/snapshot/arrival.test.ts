/** What is left of a guest that was taken over, when another process looks at it. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readArrival } from "../../../src/guests/snapshot/arrival-file.ts";
import { SnapshotDestGuest } from "../../../src/guests/snapshot/dest-guest.ts";
import { reopenDirectory } from "../../../src/guests/snapshot/directory.ts";
import { sha256 } from "../../../src/guests/snapshot/layout.ts";
import { KeptGuest } from "../../helpers/kept-guest.ts";
import { LATE_SETUP, sendEarly, sendLate } from "../../helpers/late-pages.ts";
import { postcopyCommand, run } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

let place: TemporaryDirectory;
beforeAll(() => {
  place = new TemporaryDirectory("arrival");
  sendEarly(new KeptGuest(place.path, LATE_SETUP));
});
afterAll(() => place[Symbol.asyncDispose]());

let copies = 0;
/** A copy of the directory to damage. */
function copy(): TemporaryDirectory {
  const directory = new TemporaryDirectory(`copy-${copies++}`);
  cpSync(place.path, directory.path, { recursive: true });
  return directory;
}

/** Edits arrival.json as JSON. */
function edit(path: string, change: (arrival: Record<string, unknown>) => void): void {
  const arrival = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  change(arrival);
  writeFileSync(path, JSON.stringify(arrival));
}

/** Has arrival.json say that the first block is so long. */
function resize(path: string, length: number): void {
  edit(path, (arrival) => {
    const [one, ...others] = arrival["blocks"] as { length: number }[];
    arrival["blocks"] = [{ ...one, length }, ...others];
  });
}

/** Puts a pipe that nobody writes to in the place of a file. */
function pipe(path: string): void {
  rmSync(path);
  expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
}

describe("what says who the guest is", () => {
  type Change = [what: string, change: (directory: TemporaryDirectory) => void, says: string];
  const CHANGES: Change[] = [
    ["cut off", (at) => truncateSync(at.file("arrival.json"), 50), "arrival.json is not JSON"],
    [
      "of another version",
      (at) => edit(at.file("arrival.json"), (arrival) => (arrival["version"] = 2)),
      "arrival.json is not valid",
    ],
    [
      "of memory without an end",
      (at) => {
        edit(at.file("arrival.json"), (arrival) => {
          arrival["blocks"] = [{ name: "one", length: 2 ** 60, pageSize: 4096 }];
        });
      },
      "arrival.json is not valid",
    ],
    [
      "of memory that ends before its file does",
      (at) => resize(at.file("arrival.json"), 4096),
      "ram-0.bin has 32768 bytes, its block has room for 4096",
    ],
    [
      "of two blocks with one name",
      (at) => {
        edit(at.file("arrival.json"), (arrival) => {
          const [one] = arrival["blocks"] as unknown[];
          arrival["blocks"] = [one, one];
        });
      },
      "arrival.json is not valid",
    ],
    [
      "of a block that is less than its page",
      (at) => {
        edit(at.file("arrival.json"), (arrival) => {
          arrival["blocks"] = [{ name: "one", length: 4096, pageSize: 2 ** 21 }];
        });
      },
      "arrival.json is not valid",
    ],
    [
      "longer than any",
      (at) => truncateSync(at.file("arrival.json"), 2 ** 30),
      "arrival.json cannot be read",
    ],
    ["with a pipe of device state", (at) => pipe(at.file("package.bin")), "package.bin cannot"],
    ["with a pipe of memory", (at) => pipe(at.file("ram-0.bin")), "ram-0.bin is not a file"],
    [
      "without its device state",
      (at) => rmSync(at.file("package.bin")),
      "package.bin cannot be read",
    ],
    [
      "with other device state",
      (at) => writeFileSync(at.file("package.bin"), "other"),
      "package.bin does not have the checksum that arrival.json says",
    ],
  ];

  test.each(CHANGES)("%s: it is not resumed", async (_what, change, says) => {
    await using directory = copy();
    change(directory);
    expect(() => readArrival(directory.path)).toThrow(
      `The snapshot in ${directory.path} is damaged: ${says}`,
    );
  });
});

test("memory that this host has no room for the tables of is refused, and its file left", async () => {
  await using directory = copy();
  resize(directory.file("arrival.json"), 2 ** 46);
  expect(() => readArrival(directory.path)).toThrow("A guest of 64.0 TiB takes tables of");
  expect(statSync(directory.file("ram-0.bin")).size).toBe(8 * 4096);
});

test("device state that is none is refused, whatever its checksum is", async () => {
  await using directory = copy();
  const bytes = new TextEncoder().encode("other");
  writeFileSync(directory.file("package.bin"), bytes);
  edit(directory.file("arrival.json"), (arrival) => {
    arrival["package"] = { file: "package.bin", bytes: bytes.length, sha256: sha256(bytes) };
  });
  expect(() => readArrival(directory.path)).toThrow("package");
});

test("what is cut off of the files of pages and checksums is asked for again", async () => {
  await using directory = copy();
  truncateSync(directory.file("ram-0.bin"), 2 * 4096);
  truncateSync(directory.file("ram-1.crc32"), 2 * 4);
  const kept = new KeptGuest(directory.path);
  const missing = (index: number): number[] => {
    return kept.missing.filter((each) => each.index === index).map(({ page }) => page);
  };
  // Of what came early only page 0 is left.
  expect(missing(0)).toEqual([1, 2, 3, 4, 5, 6, 7]);
  expect(missing(1)).toEqual([1, 2, 3, 4, 5, 6, 7]);
});

test("a restart of the host is told from the end of a process", async () => {
  await using directory = copy();
  const resume = () => {
    const { path } = directory;
    return new SnapshotDestGuest(path, () => undefined, readArrival(path)).resume();
  };
  expect(resume().sameBoot).toBe(true);
  edit(directory.file("arrival.json"), (arrival) => (arrival["bootId"] = "another"));
  expect(resume().sameBoot).toBe(false);
});

describe("dest --resume", () => {
  test("of a directory without such a guest, or with a whole one, says so", async () => {
    await using directory = copy();
    await using empty = new TemporaryDirectory("empty");
    expect(() => reopenDirectory(empty.path)).toThrow("No guest was taken over in");
    const kept = new KeptGuest(directory.path);
    sendLate(kept, kept.missing);
    kept.guest.finish(() => {});
    expect(() => reopenDirectory(directory.path)).toThrow("already holds a snapshot");
    expect(() => reopenDirectory(join(empty.path, "gone"))).toThrow("cannot be used");
  });

  test("is for a guest that is kept, and a source that connects", async () => {
    for (const words of [
      ["--guest", "stress", "--listen", "tcp:127.0.0.1:0"],
      ["--guest", `snapshot:${place.path}`, "--listen", "fd:9"],
    ]) {
      const { exitCode, stderr } = await run(postcopyCommand("dest", ...words, "--resume"));
      expect(exitCode).toBe(2);
      expect(stderr).toContain("Flag --resume is for a guest that is kept");
    }
  });
});
