/**
 * Opens a snapshot for serving. Everything but the pages themselves is checked here, before anybody
 * is connected to; each page is checked when it is sent.
 */
import { fstatSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { mapFileReadOnly } from "../../../syscalls/memory.ts";
import type { RamBlock } from "../../ram/block.ts";
import {
  HOST_PAGE_SIZE_MAX,
  RAM_BLOCKS_MAX,
  RAM_BYTES_MAX,
  TARGET_PAGE_SIZE,
} from "../../stream/constants.ts";
import { checkPackageHead, scanPackageTail } from "../../stream/package.ts";
import { PostcopyError, UsageError } from "../../util/errors.ts";
import {
  isSnapshotFile,
  MANIFEST_FILE,
  sha256,
  SNAPSHOT_FORMAT,
  SNAPSHOT_VERSION,
} from "./layout.ts";
import type { Manifest } from "./layout.ts";

const file = z.string().refine(isSnapshotFile, "is not a name of a snapshot's file");
const digest = z.string().regex(/^[0-9a-f]{64}$/);

export const manifestSchema = z.strictObject({
  format: z.literal(SNAPSHOT_FORMAT),
  version: z.literal(SNAPSHOT_VERSION),
  program: z.string(),
  createdAt: z.iso.datetime(),
  machineType: z.string().max(255),
  targetPageSize: z.literal(TARGET_PAGE_SIZE),
  blocks: z
    .array(
      z.strictObject({
        name: z.string().min(1).max(255),
        length: z.int().positive().max(RAM_BYTES_MAX).multipleOf(TARGET_PAGE_SIZE),
        pageSize: z.int().min(TARGET_PAGE_SIZE).max(HOST_PAGE_SIZE_MAX),
        file,
        sums: file,
        sumsSha256: digest,
        pagesStored: z.int().nonnegative(),
      }),
    )
    .min(1)
    .max(RAM_BLOCKS_MAX),
  package: z.strictObject({ file, bytes: z.int().positive(), sha256: digest }),
});

/** A snapshot that can be served. Plain data: it crosses to workers. */
export interface OpenedSnapshot {
  directory: string;
  machineType: string;
  /** Mapped read-only, shared with the page cache and with every other reader. */
  blocks: RamBlock[];
  /** Checksums of all target pages, by block. */
  sums: SharedArrayBuffer[];
  /** Name of the file of each block, for errors. */
  files: string[];
  package: Uint8Array;
}

/** @throws UsageError when there is none, PostcopyError DAMAGED_SNAPSHOT that names the file. */
export function openSnapshot(directory: string): OpenedSnapshot {
  const manifest = readManifest(directory);
  const blocks = manifest.blocks.map(({ name, length, pageSize, file: name_ }, index): RamBlock => {
    const fd = openFile(directory, name_);
    const { size } = fstatSync(fd);
    if (size !== length) {
      throw damaged(directory, name_, `has ${size} bytes, its block has ${length}`);
    }
    return { index, name, length, pageSize, address: mapFileReadOnly(fd, length).address };
  });
  const sums = manifest.blocks.map((block) => {
    const bytes = readChecked(directory, block.sums, block.sumsSha256);
    const words = block.length / TARGET_PAGE_SIZE;
    if (bytes.length !== words * 4) {
      throw damaged(directory, block.sums, `has ${bytes.length} bytes for ${words} pages`);
    }
    const shared = new SharedArrayBuffer(bytes.length);
    new Uint8Array(shared).set(bytes);
    return shared;
  });
  const { package: device } = manifest;
  const bytes = readChecked(directory, device.file, device.sha256);
  checkPackageHead(bytes);
  scanPackageTail(bytes);
  const files = manifest.blocks.map((block) => block.file);
  return { directory, machineType: manifest.machineType, blocks, sums, files, package: bytes };
}

function readManifest(directory: string): Manifest {
  let text: string;
  try {
    text = readFileSync(join(directory, MANIFEST_FILE), "utf8");
  } catch (cause) {
    const half = "It has no manifest: no snapshot was ever completed there";
    throw new UsageError("NO_SNAPSHOT", `${directory} is not a snapshot`, { cause, hint: half });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw damaged(directory, MANIFEST_FILE, "is not JSON", cause);
  }
  const parsed = manifestSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw damaged(directory, MANIFEST_FILE, `is not valid: ${z.prettifyError(parsed.error)}`);
}

function openFile(directory: string, name: string): number {
  try {
    return openSync(join(directory, name), "r");
  } catch (cause) {
    throw damaged(directory, name, "cannot be opened", cause);
  }
}

function readChecked(directory: string, name: string, expected: string): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = new Uint8Array(readFileSync(join(directory, name)));
  } catch (cause) {
    throw damaged(directory, name, "cannot be read", cause);
  }
  if (sha256(bytes) === expected) return bytes;
  throw damaged(directory, name, "does not have the checksum that the manifest says");
}

function damaged(directory: string, name: string, what: string, cause?: unknown): PostcopyError {
  return new PostcopyError(
    "DAMAGED_SNAPSHOT",
    `The snapshot in ${directory} is damaged: ${name} ${what}`,
    { cause, hint: "nothing of it was sent; take it again, or restore the file" },
  );
}
