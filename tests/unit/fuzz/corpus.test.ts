/** Bytes that once did harm. Each is small, made by hand, and says what it did. */
import { describe, expect, spyOn, test } from "bun:test";
import { closeSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { FileReader } from "../../../src/channel/file-reader.ts";
import { readManifest } from "../../../src/guests/snapshot/manifest.ts";
import { workingSetPath } from "../../../src/guests/snapshot/layout.ts";
import { readWorkingSet } from "../../../src/guests/stored/working-set.ts";
import { openIndexed, recogniseFile } from "../../../src/guests/stream/open.ts";
import { splitDeviceTail } from "../../../src/stream/device-tail.ts";
import { CORPUS } from "../../fuzz/corpus.ts";
import { streamLayout } from "../../fuzz/layouts.ts";
import type { Material } from "../../fuzz/mutate.ts";
import { TARGETS } from "../../fuzz/targets.ts";
import { buildPublished } from "../../fuzz/targets/files.ts";
import { sealIndex } from "../../fuzz/targets/kept.ts";
import { runInput } from "../../fuzz/worker.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import {
  bytesOf,
  description,
  eof,
  opening,
  ramEnd,
  ramStart,
  unknownDevice,
  zeroPages,
} from "../../helpers/hand-made-stream.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const SAVED = [
  ...[opening(), ramStart(), ramEnd(zeroPages()), unknownDevice(3, "cpu", 1, 2, 3), eof],
  description("cpu"),
];

/** The stream that the guest of a corpus entry is of. */
const bytes = bytesOf(...SAVED);
const stream: Material = { name: "stream.own", bytes, layout: streamLayout(bytes) };

describe("what once did harm", () => {
  for (const { name, targets, bytes: input, is } of CORPUS) {
    for (const target of TARGETS.filter((each) => targets.includes(each.name))) {
      const corpusTest = requireOrSkip(
        ...(target.name === "dest, in memory" ? [needUserfaultfd()] : []),
      );
      corpusTest(`${name}: ${target.name}`, async () => {
        const recovers = target.name === "return path" ? "back.own.recovery" : "stream.own";
        const material = { ...stream, name: recovers };
        const verdict = await runInput(target, input, { material, recordings: [stream] });
        if (verdict instanceof Error) throw verdict;
        expect(verdict === "accepted" ? verdict : verdict.refused).toBe(is);
      });
    }
  }

  test("every entry has a target", () => {
    const known = new Set(TARGETS.map(({ name }) => name));
    expect(CORPUS.flatMap(({ targets }) => targets).filter((name) => !known.has(name))).toEqual([]);
  });
});

describe("an index that is made to be believed", () => {
  /** An index with one place changed, and the digest made right. */
  async function opened(place: number): Promise<string> {
    await using directory = new TemporaryDirectory("index");
    const path = directory.file("stream");
    // A page that has content, so that there is a table that says where.
    writeFileSync(path, bytes);
    closeSync(buildPublished(path).descriptor);
    const index = new Uint8Array(readFileSync(`${path}.postcopy-index`));
    new DataView(index.buffer).setFloat64(8, place, true);
    writeFileSync(`${path}.postcopy-index`, sealIndex(index, path));
    const found = openIndexed(recogniseFile(path));
    if (typeof found === "string") return found;
    if (found !== undefined)
      for (const fd of [found.descriptor, found.sideDescriptor]) closeSync(fd);
    return found === undefined ? "is not there" : "is taken";
  }

  test("is taken where its pages can be", async () => {
    expect(await opened(0)).toBe("is taken");
    expect(await opened(8)).toBe("is damaged");
  });

  test.each([NaN, Infinity, -Infinity, 0.5, 2 ** 60, -(2 ** 60), -1])(
    "is refused where a page lies at %p",
    async (place) => expect(await opened(place)).toBe("is damaged"),
  );
});

describe("files that are none", () => {
  test("are not waited for, as a pipe without a writer would be", async () => {
    await using directory = new TemporaryDirectory("pipes");
    for (const name of ["manifest.json", "working-set.bin", "stream"]) {
      expect(Bun.spawnSync(["mkfifo", join(directory.path, name)]).exitCode).toBe(0);
    }
    expect(() => readManifest(directory.path)).toThrow("cannot be read as a snapshot");
    expect(readWorkingSet(workingSetPath(directory.path), [])).toBe("damaged");
    expect(() => new FileReader(directory.file("stream"))).toThrow("is not a file");
  });

  test("and a manifest longer than any is not read", async () => {
    await using directory = new TemporaryDirectory("manifest");
    writeFileSync(directory.file("manifest.json"), " ".repeat(4 * 1024 * 1024));
    expect(() => readManifest(directory.path)).toThrow("cannot be read as a snapshot");
  });
});

test("a tail with many places at which a description may begin: few are looked at", () => {
  // Each says that a description begins, of just the length that is left.
  const count = 10_000;
  const tail = new Uint8Array(count * 8);
  for (let at = 0; at < tail.length; at += 8) {
    tail.set([0, 6, 0, 0, 0, 0, 0x7b, 0x20], at);
    new DataView(tail.buffer).setUint32(at + 2, tail.length - at - 6);
  }
  const parse = spyOn(JSON, "parse");
  try {
    expect(() => splitDeviceTail(tail, 0)).toThrow("ends within the state of the devices");
    expect(parse.mock.calls.length).toBeLessThanOrEqual(2);
  } finally {
    parse.mockRestore();
  }
});
