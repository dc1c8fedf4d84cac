import { describe, expect, test } from "bun:test";
import type { ManifestBlock } from "../../../src/guests/snapshot/layout.ts";
import { manifestBytesMax } from "../../../src/guests/snapshot/layout.ts";
import { manifestSchema } from "../../../src/guests/snapshot/manifest.ts";

const DIGEST = "0123456789abcdef".repeat(4);
const MIB = 2 ** 20;

function blockOf(index: number, changes: Partial<ManifestBlock> = {}): ManifestBlock {
  return {
    name: `block${index}`,
    length: 4 * MIB,
    pageSize: 4096,
    file: `ram-${index}.bin`,
    sums: `ram-${index}.crc32`,
    sumsSha256: DIGEST,
    pagesStored: 1024,
    ...changes,
  };
}

function manifestOf(blocks: readonly ManifestBlock[], file = "package.bin") {
  return {
    format: "postcopy-snapshot",
    version: 1,
    program: "postcopy 1.0.0",
    createdAt: new Date(0).toISOString(),
    machineType: "pc-i440fx-7.2",
    targetPageSize: 4096,
    blocks,
    package: { file, bytes: 1, sha256: DIGEST },
  };
}

/** Where a manifest is found wrong; empty when it is not. */
function problems(manifest: unknown): string[] {
  const { error } = manifestSchema.safeParse(manifest);
  return (error?.issues ?? []).map(({ path }) => path.join("."));
}

/** The same for one whose second block is changed. */
function withSecond(changes: Partial<ManifestBlock>): string[] {
  return problems(manifestOf([blockOf(0), blockOf(1, changes)]));
}

describe("a manifest", () => {
  test("of blocks of any page size is good", () => {
    expect(withSecond({})).toEqual([]);
    expect(withSecond({ pageSize: 2 * MIB, length: 3 * MIB, pagesStored: 0 })).toEqual([]);
  });

  test("may say who the guest is, and describe its devices", () => {
    const more = {
      uuid: "5ca1ab1e-0000-4000-8000-0123456789ab",
      vmDescription: { file: "vm-description.json", bytes: 7, sha256: DIGEST },
    };
    expect(problems({ ...manifestOf([blockOf(0)]), ...more })).toEqual([]);
    expect(problems({ ...manifestOf([blockOf(0)]), uuid: "somebody" })).toEqual(["uuid"]);
    const elsewhere = { ...more.vmDescription, file: "../vm-description.json" };
    const outside = { ...manifestOf([blockOf(0)]), vmDescription: elsewhere };
    expect(problems(outside)).toEqual(["vmDescription.file"]);
  });

  test.each([
    [{ pageSize: 12288 }, "blocks.1.pageSize"],
    [{ pageSize: 2048 }, "blocks.1.pageSize"],
    [{ pageSize: 2 ** 31, length: 2 ** 32 }, "blocks.1.pageSize"],
    [{ pageSize: 8 * MIB }, "blocks.1.length"],
    [{ length: 4 * MIB - 512 }, "blocks.1.length"],
    [{ length: 0 }, "blocks.1.length"],
    [{ pagesStored: 1025 }, "blocks.1.pagesStored"],
    [{ name: "block0" }, "blocks.1.name"],
    [{ file: "ram-0.bin" }, "blocks.1.file"],
    [{ file: "../ram-1.bin" }, "blocks.1.file"],
    [{ file: "ram-01.bin" }, "blocks.1.file"],
    [{ sums: "ram-0.crc32" }, "blocks.1.sums"],
    [{ sums: "package.bin" }, "blocks.1.sums"],
  ])("with a block of %p is refused at %s", (changes, path) => {
    expect(withSecond(changes)).toContain(path);
  });

  test("of more memory than a stream can have is refused", () => {
    const half = { length: 2 ** 46 };
    expect(problems(manifestOf([blockOf(0, half), blockOf(1, half)]))).toEqual([]);
    const more = { length: 2 ** 46 + 4096 };
    expect(problems(manifestOf([blockOf(0, half), blockOf(1, more)]))).toEqual(["blocks"]);
  });

  test("names its package as the program does", () => {
    expect(problems(manifestOf([blockOf(0)], "ram-0.bin"))).toEqual(["package.file"]);
  });

  test("has no more bytes than are reserved for it", () => {
    for (const count of [1, 1024]) {
      // The longest name, each byte of which JSON writes as six.
      const name = "\u0001".repeat(255);
      const length = 2 ** 47;
      const blocks = Array.from({ length: count }, (_, i) => {
        return blockOf(i, { name, length, pageSize: 2 ** 30, pagesStored: length });
      });
      const manifest = { ...manifestOf(blocks), machineType: name };
      const bytes = Buffer.byteLength(JSON.stringify(manifest, null, 2));
      expect(bytes).toBeLessThan(manifestBytesMax(count));
    }
  });
});
