import { describe, expect, test } from "bun:test";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { prepareDirectory } from "../../../src/guests/snapshot/directory.ts";
import { isSnapshotFile } from "../../../src/guests/snapshot/layout.ts";
import { SnapshotTable } from "../../../src/guests/snapshot/page-table.ts";
import { StoredPages } from "../../../src/guests/stored/pages.ts";
import { pageSum, ZERO_PAGE_SUM } from "../../../src/guests/stored/page-sum.ts";
import { openSnapshot } from "../../../src/guests/snapshot/open.ts";
import { packageOfSections } from "../../../src/stream/package.ts";
import { uuidText } from "../../../src/stream/uuid.ts";
import { bytesOf, unknownDevice } from "../../helpers/hand-made-stream.ts";
import { filledPage, KeptGuest } from "../../helpers/kept-guest.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGE = 4096;
const PAGES = 256;
const SETUP = [{ name: "pc.ram", length: PAGES * PAGE, pageSize: PAGE }];

/** Bytes on the disk. */
function diskBytes(kept: KeptGuest): number {
  return statSync(join(kept.directory, "ram-0.bin")).blocks * 512;
}

/** Bytes that are no zeros and have the CRC-32 of zeros: the polynomial itself, at the end. */
function pageLikeZeros(): Uint8Array {
  const page = new Uint8Array(PAGE);
  page.set([0x41, 0x06, 0x71, 0xdb, 0x01], PAGE - 5);
  return page;
}

describe("room on the disk", () => {
  test("is taken when a range is discarded, and given back where zeros came", async () => {
    await using directory = new TemporaryDirectory("kept");
    const kept = new KeptGuest(directory.path, SETUP);
    kept.guest.reserve(kept.block(0), 0, PAGES * PAGE);
    expect(diskBytes(kept)).toBeGreaterThanOrEqual(PAGES * PAGE);
    expect(statSync(join(directory.path, "ram-0.bin")).size).toBe(PAGES * PAGE);
    kept.store(kept.postcopy, 0, 0, filledPage(1), filledPage(2));
    for (let page = 2; page < PAGES; page += 2) {
      kept.postcopy.zeros(kept.block(0), page * PAGE, 2);
    }
    kept.finish();
    expect(diskBytes(kept)).toBeLessThan(8 * PAGE);
    const ram = kept.file("ram-0.bin");
    expect([ram.length, ram[0], ram[PAGE], ram[2 * PAGE]]).toEqual([PAGES * PAGE, 1, 2, 0]);
  });

  test("is not taken twice, nor for what is no part of the range", async () => {
    await using directory = new TemporaryDirectory("kept");
    const kept = new KeptGuest(directory.path, SETUP);
    const page = filledPage(7);
    kept.store(kept.precopy, 0, 10, page, page, page, page);
    const before = diskBytes(kept);
    kept.guest.reserve(kept.block(0), 10 * PAGE, 4 * PAGE);
    expect(diskBytes(kept)).toBe(before);
    kept.guest.reserve(kept.block(0), 10 * PAGE, 8 * PAGE);
    expect(diskBytes(kept)).toBe(before + 4 * PAGE);
  });

  test("is taken for checksums, device state and manifest as well", async () => {
    await using directory = new TemporaryDirectory("kept");
    const kept = new KeptGuest(directory.path, SETUP);
    for (const name of ["ram-0.crc32", "manifest.json.tmp"]) {
      expect(statSync(join(directory.path, name)).blocks).toBeGreaterThan(0);
    }
    const { devices } = kept.guest;
    if (devices.kind === "opaque") devices.keep(new Uint8Array(10_000));
    expect(statSync(join(directory.path, "package.bin")).blocks * 512).toBeGreaterThan(10_000);
  });
});

describe("a guest that completed in precopy", () => {
  const device = packageOfSections(bytesOf(unknownDevice(3, "cpu", 1, 2, 3)), 0);
  const uuid = Uint8Array.from({ length: 16 }, (_, i) => i * 17);

  test("is kept with its description and with who it is", async () => {
    await using directory = new TemporaryDirectory("kept");
    const kept = new KeptGuest(directory.path, SETUP);
    kept.guest.configure({ machine: "pc", uuid });
    kept.finishWith(device, '{"devices":["\xe9"]}');
    const snapshot = openSnapshot(directory.path);
    expect(snapshot).toMatchObject({ uuid: uuidText(uuid), package: device });
    const described = Buffer.from(kept.file("vm-description.json")).toString("latin1");
    expect(described).toBe('{"devices":["\xe9"]}');
  });

  test("is no snapshot when it was given back meanwhile, and is cleared away", async () => {
    await using directory = new TemporaryDirectory("kept");
    const path = directory.file("guest");
    prepareDirectory(path);
    const kept = new KeptGuest(path, SETUP);
    const givenBack = (): never => {
      throw new Error("given back");
    };
    expect(() => kept.finishWith(device, "{}", givenBack)).toThrow("given back");
    expect(readdirSync(path)).toContain("vm-description.json");
    expect(readdirSync(path)).not.toContain("manifest.json");
    expect(readdirSync(path).filter((name) => !isSnapshotFile(name))).toEqual([]);
  });
});

test("a page that went from data to zeros in any phase reads as zeros", async () => {
  await using directory = new TemporaryDirectory("kept");
  const kept = new KeptGuest(directory.path, SETUP);
  kept.store(kept.precopy, 0, 0, filledPage(1), filledPage(2), filledPage(3));
  kept.precopy.zeros(kept.block(0), 0, 1);
  kept.guest.reserve(kept.block(0), PAGE, PAGE);
  kept.postcopy.zeros(kept.block(0), PAGE, 1);
  kept.finish();
  const ram = kept.file("ram-0.bin");
  expect([ram[0], ram[PAGE], ram[2 * PAGE]]).toEqual([0, 0, 3]);
});

test("a page that comes twice in postcopy is kept as it came last, and its checksum is right", async () => {
  await using directory = new TemporaryDirectory("kept");
  const kept = new KeptGuest(directory.path, SETUP);
  kept.store(kept.postcopy, 0, 0, filledPage(1), filledPage(2));
  kept.store(kept.postcopy, 0, 1, filledPage(9));
  kept.finish();
  const pages = new StoredPages(new SnapshotTable(openSnapshot(directory.path)));
  const target = new Uint8Array(2 * PAGE);
  // A page is checked against its checksum as it is read.
  for (const offset of [0, PAGE]) pages.copyPage(kept.block(0), offset, target, offset);
  expect([target[0], target[PAGE]]).toEqual([1, 9]);
});

test("pages that lie apart in the receive buffer are kept in their order, in any phase", async () => {
  await using directory = new TemporaryDirectory("kept");
  const kept = new KeptGuest(directory.path, SETUP);
  const fills = [5, 0, 7, 8, 9];
  for (const [sink, first] of [
    [kept.precopy, 20],
    [kept.postcopy, 3],
  ] as const) {
    kept.storeScattered(sink, 0, first, fills.map(filledPage));
  }
  kept.finish();
  const pages = new StoredPages(new SnapshotTable(openSnapshot(directory.path)));
  const target = new Uint8Array(PAGE);
  for (const first of [20, 3]) {
    for (const [n, fill] of fills.entries()) {
      pages.copyPage(kept.block(0), (first + n) * PAGE, target, 0);
      expect(Buffer.compare(target, filledPage(fill))).toBe(0);
    }
  }
});

test("a page with the CRC of zeros is not taken for zeros, when it comes or when it goes", async () => {
  const page = pageLikeZeros();
  expect(Bun.hash.crc32(page)).toBe(Bun.hash.crc32(new Uint8Array(PAGE)));
  expect(pageSum(page)).not.toBe(ZERO_PAGE_SUM);
  expect(pageSum(new Uint8Array(PAGE))).toBe(ZERO_PAGE_SUM);
  await using directory = new TemporaryDirectory("kept");
  const kept = new KeptGuest(directory.path, SETUP);
  kept.store(kept.precopy, 0, 3, page, page);
  kept.precopy.zeros(kept.block(0), 4 * PAGE, 1);
  kept.finish();
  const snapshot = openSnapshot(directory.path);
  const stored = new StoredPages(new SnapshotTable(snapshot));
  const [block] = snapshot.blocks;
  if (block === undefined) throw new Error("no block");
  expect([3, 4].map((n) => stored.isZero(block, n * PAGE))).toEqual([false, true]);
  const target = new Uint8Array(PAGE);
  stored.copyPage(block, 3 * PAGE, target, 0);
  expect(Buffer.compare(target, page)).toBe(0);
  expect(readFileSync(join(directory.path, "ram-0.bin"))[5 * PAGE - 5]).toBe(0);
});

describe("the sinks", () => {
  test("read a page back in precopy, and not after LISTEN", async () => {
    await using directory = new TemporaryDirectory("kept");
    const kept = new KeptGuest(directory.path, SETUP);
    kept.store(kept.precopy, 0, 5, filledPage(9));
    const page = new Uint8Array(PAGE);
    kept.precopy.readPage(kept.block(0), 5 * PAGE, page);
    expect(Buffer.compare(page, filledPage(9))).toBe(0);
    expect("readPage" in kept.postcopy).toBe(false);
  });

  test("take no block that is less than one of its pages", async () => {
    await using directory = new TemporaryDirectory("kept");
    const setup = [{ name: "odd", length: PAGE, pageSize: 2 ** 21 }];
    expect(() => new KeptGuest(directory.path, setup)).toThrow('The RAM block "odd" of 4096 bytes');
  });
});
