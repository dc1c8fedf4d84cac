/** What a peer says decides nothing about where its guest is written, nor who can read it there. */
import { expect, test } from "bun:test";
import { mkdirSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { prepareDirectory } from "../../../src/guests/snapshot/directory.ts";
import { openSnapshot } from "../../../src/guests/snapshot/open.ts";
import { filledPage, KeptGuest } from "../../helpers/kept-guest.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGE = 4096;

/** Names of RAM blocks as only a hostile stream has them. */
const NAMES = [
  "../outside",
  "/tmp/../outside",
  "a/b",
  "..",
  ".",
  "ram-0.bin",
  "manifest.json",
  "\0",
];

test("names of RAM blocks are never names of files", async () => {
  await using place = new TemporaryDirectory("kept");
  const directory = place.file("guest");
  mkdirSync(directory);
  const setup = NAMES.map((name) => ({ name, length: PAGE, pageSize: PAGE }));
  const kept = new KeptGuest(directory, setup);
  NAMES.forEach((_, index) => kept.store(kept.postcopy, index, 0, filledPage(index + 1)));
  kept.finish();
  expect(readdirSync(place.path)).toEqual(["guest"]);
  const files = NAMES.flatMap((_, index) => [`ram-${index}.bin`, `ram-${index}.crc32`]);
  expect(readdirSync(directory).toSorted()).toEqual(
    [...files, "manifest.json", "package.bin"].toSorted(),
  );
  NAMES.forEach((_, index) => expect(kept.file(`ram-${index}.bin`)).toEqual(filledPage(index + 1)));
  // The names are kept, as what they are.
  expect(openSnapshot(directory).blocks.map(({ name }) => name)).toEqual(NAMES);
});

test("a kept guest can be read by its owner only, whatever the umask", async () => {
  await using place = new TemporaryDirectory("kept");
  const directory = place.file("deep/guest");
  const before = process.umask(0);
  try {
    prepareDirectory(directory);
    new KeptGuest(directory, [{ name: "pc.ram", length: PAGE, pageSize: PAGE }]).finish();
  } finally {
    process.umask(before);
  }
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  for (const name of readdirSync(directory)) {
    expect([name, statSync(join(directory, name)).mode & 0o777]).toEqual([name, 0o600]);
  }
});
