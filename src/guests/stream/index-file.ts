/**
 * The index of a saved stream as a file:
 *
 *     [pages that had to be decoded, each at its place in the guest's memory; sparse]
 *     for each block:  f64 a page, where it lies (where.ts);  u32 a page, its checksum
 *     the package of device state
 *     JSON: of which file this is, and how long all that is
 *     64 bytes: "PCINDEX2", u64 where the tables begin, u64 where the JSON begins, u64 its bytes,
 *               SHA-256 of everything from the tables on but these 32 bytes
 *
 * Numbers are little-endian. It is written once, from front to back, and then never changed.
 */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { fstatSync, fsyncSync, readSync, writeSync } from "node:fs";
import * as z from "zod";
import { getU64, putU64 } from "../../../syscalls/memory.ts";
import type { RamBlock } from "../../ram/block.ts";
import { checkTables } from "../../ram/tables.ts";
import {
  HOST_PAGE_SIZE_MAX,
  MACHINE_NAME_BYTES_MAX,
  NAME_BYTES_MAX,
  PACKAGE_BYTES_MAX,
  RAM_BLOCKS_MAX,
  RAM_BYTES_MAX,
  TARGET_PAGE_SIZE,
} from "../../stream/constants.ts";
import { checkPackageHead, scanPackageTail } from "../../stream/package.ts";
import { StreamError } from "../../util/errors.ts";
import { PROGRAM, VERSION } from "../../util/version.ts";
import type { Draft } from "./draft.ts";
import { storeFailureOf } from "./failures.ts";
import { BYTES_A_PAGE, sideOffset, ZERO_PAGE } from "./where.ts";

const MAGIC = "PCINDEX2";
const FOOTER_BYTES = 64;
const DIGEST_BYTES = 32;
/** Bytes of tables written or read at once. */
const STEP_BYTES = 1024 * 1024;
const JSON_BYTES_MAX = 1024 * 1024;

const integerText = z.string().regex(/^\d{1,20}$/);

const headSchema = z.strictObject({
  program: z.string(),
  file: z.strictObject({
    size: z.int().nonnegative(),
    mtimeNs: integerText,
    inode: integerText,
    device: integerText,
  }),
  /** SHA-256 of the first bytes of the file. */
  opening: z.string(),
  machineType: z.string().max(MACHINE_NAME_BYTES_MAX),
  uuid: z.guid().optional(),
  blocks: z
    .array(
      z.strictObject({
        name: z.string().min(1).max(NAME_BYTES_MAX),
        length: z.int().positive().max(RAM_BYTES_MAX).multipleOf(TARGET_PAGE_SIZE),
        pageSize: z
          .int()
          .min(TARGET_PAGE_SIZE)
          .max(HOST_PAGE_SIZE_MAX)
          .refine((size) => Number.isInteger(Math.log2(size))),
      }),
    )
    .min(1)
    .max(RAM_BLOCKS_MAX)
    .refine((blocks) => new Set(blocks.map(({ name }) => name)).size === blocks.length),
  sideBytes: z.int().nonnegative(),
  packageBytes: z.int().positive().max(PACKAGE_BYTES_MAX),
});

export type IndexHead = z.infer<typeof headSchema>;

/** What an index says, beside the pages it holds. */
export interface IndexContent {
  head: IndexHead;
  where: SharedArrayBuffer[];
  sums: SharedArrayBuffer[];
  package: Uint8Array;
}

/** What `writeIndex` is given of the head. */
export type IndexFacts = Omit<IndexHead, "program" | "blocks" | "packageBytes"> & {
  blocks: readonly RamBlock[];
};

/**
 * Writes everything behind the decoded pages, and makes the file durable.
 * @throws PostcopyError NO_SPACE, CANNOT_STORE.
 */
export function writeIndex(
  { fd, place }: Pick<Draft, "fd" | "place">,
  facts: IndexFacts,
  content: Pick<IndexContent, "where" | "sums" | "package">,
): void {
  try {
    writeAll(new HashingWriter(fd, facts.sideBytes), facts, content);
    fsyncSync(fd);
  } catch (error) {
    throw storeFailureOf(error, place);
  }
}

function writeAll(
  writer: HashingWriter,
  facts: IndexFacts,
  content: Pick<IndexContent, "where" | "sums" | "package">,
): void {
  for (const [index, where] of content.where.entries()) {
    writer.shared(where);
    writer.shared(content.sums[index] ?? new SharedArrayBuffer(0));
  }
  writer.bytes(content.package);
  const head: IndexHead = {
    ...facts,
    program: `${PROGRAM} ${VERSION}`,
    blocks: facts.blocks.map(({ name, length, pageSize }) => ({ name, length, pageSize })),
    packageBytes: content.package.length,
  };
  const jsonAt = writer.at;
  const json = new TextEncoder().encode(JSON.stringify(head));
  writer.bytes(json);
  const footer = footerOf(facts.sideBytes, jsonAt, json.length);
  writer.bytes(footer.subarray(0, FOOTER_BYTES - DIGEST_BYTES));
  writer.digest();
}

function footerOf(tablesAt: number, jsonAt: number, jsonBytes: number): Uint8Array {
  const footer = new Uint8Array(FOOTER_BYTES);
  footer.set(new TextEncoder().encode(MAGIC));
  const view = new DataView(footer.buffer);
  putU64(view, 8, tablesAt);
  putU64(view, 16, jsonAt);
  putU64(view, 24, jsonBytes);
  return footer;
}

class HashingWriter {
  at: number;
  readonly #fd: number;
  readonly #hash: Hash = createHash("sha256");
  readonly #step = Buffer.alloc(STEP_BYTES);

  constructor(fd: number, at: number) {
    this.#fd = fd;
    this.at = at;
  }

  /** Shared memory is copied out first: a file cannot be written from it. */
  shared(memory: SharedArrayBuffer): void {
    const all = new Uint8Array(memory);
    for (let done = 0; done < all.length; done += STEP_BYTES) {
      const part = all.subarray(done, done + STEP_BYTES);
      this.#step.set(part);
      this.bytes(this.#step.subarray(0, part.length));
    }
  }

  bytes(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.#write(bytes);
  }

  /** The SHA-256 of all that was written. */
  digest(): void {
    this.#write(this.#hash.digest());
  }

  #write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      done += writeSync(this.#fd, bytes, done, bytes.length - done, this.at + done);
    }
    this.at += bytes.length;
  }
}

/** Reads an index back; a string says why it cannot be used. */
export function readIndex(fd: number): IndexContent | string {
  try {
    return readAll(fd);
  } catch (error) {
    return `cannot be read (${error instanceof Error ? error.message : String(error)})`;
  }
}

function readAll(fd: number): IndexContent | string {
  const { size } = fstatSync(fd);
  const footer = new Uint8Array(FOOTER_BYTES);
  if (size < FOOTER_BYTES || !readWhole(fd, footer, size - FOOTER_BYTES)) return "is cut off";
  const view = new DataView(footer.buffer);
  if (new TextDecoder().decode(footer.subarray(0, MAGIC.length)) !== MAGIC) {
    return "is cut off, or of another version";
  }
  const [tablesAt, jsonAt, jsonBytes] = [getU64(view, 8), getU64(view, 16), getU64(view, 24)];
  const end = size - FOOTER_BYTES;
  if (jsonBytes > JSON_BYTES_MAX || jsonAt + jsonBytes !== end || tablesAt > jsonAt) {
    return "is damaged";
  }
  const json = new Uint8Array(jsonBytes);
  if (!readWhole(fd, json, jsonAt)) return "is cut off";
  const head = parseHead(json);
  if (head === undefined) return "is damaged";
  const pages = head.blocks.reduce((sum, { length }) => sum + length / TARGET_PAGE_SIZE, 0);
  const tablesEnd = tablesAt + BYTES_A_PAGE * pages;
  if (head.sideBytes !== tablesAt || tablesEnd + head.packageBytes !== jsonAt) return "is damaged";
  checkTables(head.blocks, BYTES_A_PAGE);
  const reader = new HashingReader(fd, tablesAt);
  const where: SharedArrayBuffer[] = [];
  const sums: SharedArrayBuffer[] = [];
  for (const { length } of head.blocks) {
    where.push(reader.shared((8 * length) / TARGET_PAGE_SIZE));
    sums.push(reader.shared((4 * length) / TARGET_PAGE_SIZE));
  }
  const device = reader.bytes(new Uint8Array(head.packageBytes));
  reader.bytes(new Uint8Array(jsonBytes));
  if (!isPackage(device)) return "is damaged";
  const digest = reader.digest(footer.subarray(0, FOOTER_BYTES - DIGEST_BYTES));
  const expected = footer.subarray(FOOTER_BYTES - DIGEST_BYTES);
  if (Buffer.compare(digest, expected) !== 0) return "is damaged";
  const ends = { file: head.file.size, side: head.sideBytes };
  if (!where.every((places) => areWithin(new Float64Array(places), ends))) return "is damaged";
  return { head, where, sums, package: device };
}

/** Whether every page lies in one of the two files as a whole: a digest proves no good will. */
function areWithin(where: Float64Array, ends: { file: number; side: number }): boolean {
  return where.every((place) => {
    if (place === ZERO_PAGE) return true;
    const at = place < 0 ? sideOffset(place) : place;
    const end = place < 0 ? ends.side : ends.file;
    return Number.isSafeInteger(at) && at + TARGET_PAGE_SIZE <= end;
  });
}

function isPackage(bytes: Uint8Array): boolean {
  try {
    checkPackageHead(bytes);
    scanPackageTail(bytes);
    return true;
  } catch (error) {
    if (error instanceof StreamError) return false;
    throw error;
  }
}

function parseHead(json: Uint8Array): IndexHead | undefined {
  try {
    return headSchema.safeParse(JSON.parse(new TextDecoder().decode(json))).data;
  } catch {
    return undefined;
  }
}

function readWhole(fd: number, bytes: Uint8Array, at: number): boolean {
  for (let done = 0; done < bytes.length;) {
    const got = readSync(fd, bytes, done, bytes.length - done, at + done);
    if (got === 0) return false;
    done += got;
  }
  return true;
}

class HashingReader {
  readonly #fd: number;
  readonly #hash: Hash = createHash("sha256");
  readonly #step = Buffer.alloc(STEP_BYTES);
  #at: number;

  constructor(fd: number, at: number) {
    this.#fd = fd;
    this.#at = at;
  }

  shared(length: number): SharedArrayBuffer {
    const memory = new SharedArrayBuffer(length);
    const all = new Uint8Array(memory);
    for (let done = 0; done < length; done += STEP_BYTES) {
      const part = this.bytes(this.#step.subarray(0, Math.min(STEP_BYTES, length - done)));
      all.set(part, done);
    }
    return memory;
  }

  /** What is cut off meanwhile leaves old bytes behind, which the digest tells. */
  bytes(into: Uint8Array): Uint8Array {
    readWhole(this.#fd, into, this.#at);
    this.#hash.update(into);
    this.#at += into.length;
    return into;
  }

  digest(last: Uint8Array): Uint8Array {
    return this.#hash.update(last).digest();
  }
}
