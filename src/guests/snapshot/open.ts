/**
 * Opens a snapshot for serving. Everything but the pages themselves is checked here, before anybody
 * is connected to; each page is checked when it is read.
 */
import { fstatSync } from "node:fs";
import { join } from "node:path";
import type { RamBlock } from "../../ram/block.ts";
import { checkTables } from "../../ram/tables.ts";
import { PACKAGE_BYTES_MAX, TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { checkPackageHead, scanPackageTail } from "../../stream/package.ts";
import { openRegular, readRegular } from "../../util/files.ts";
import { damagedSnapshot, NOTHING_SENT } from "./damage.ts";
import { sha256 } from "./layout.ts";
import { readManifest } from "./manifest.ts";

/** A checksum, as it is read and as it is shared, and the bits of the source. */
const BYTES_A_PAGE = 9;

/** A snapshot that can be served. Plain data: it crosses to workers. */
export interface OpenedSnapshot {
  directory: string;
  machineType: string;
  /** They lie in files, so their addresses are 0. */
  blocks: RamBlock[];
  /** Descriptors of the RAM files, by block; open as long as the process lives. */
  descriptors: number[];
  /** Names of the same files, for errors. */
  files: string[];
  /** Checksums of all target pages, by block. */
  sums: SharedArrayBuffer[];
  package: Uint8Array;
  uuid: string | undefined;
}

/** @throws UsageError when there is none, PostcopyError DAMAGED_SNAPSHOT that names the file. */
export function openSnapshot(directory: string): OpenedSnapshot {
  const manifest = readManifest(directory);
  const blocks = manifest.blocks.map(({ name, length, pageSize }, index): RamBlock => {
    return { index, name, length, pageSize, address: 0 };
  });
  checkTables(blocks, BYTES_A_PAGE);
  const descriptors = manifest.blocks.map(({ file, length }) => {
    const fd = openFile(directory, file);
    const { size } = fstatSync(fd);
    if (size === length) return fd;
    throw damaged(directory, file, `has ${size} bytes, its block has ${length}`);
  });
  const sums = manifest.blocks.map((block) => {
    const words = block.length / TARGET_PAGE_SIZE;
    const bytes = readChecked(directory, block.sums, block.sumsSha256, words * 4);
    if (bytes.length !== words * 4) {
      throw damaged(directory, block.sums, `has ${bytes.length} bytes for ${words} pages`);
    }
    const shared = new SharedArrayBuffer(bytes.length);
    new Uint8Array(shared).set(bytes);
    return shared;
  });
  const { package: device, machineType, uuid } = manifest;
  const bytes = readChecked(directory, device.file, device.sha256, PACKAGE_BYTES_MAX);
  checkPackageHead(bytes);
  scanPackageTail(bytes);
  const files = manifest.blocks.map(({ file }) => file);
  return { directory, machineType, uuid, blocks, descriptors, files, sums, package: bytes };
}

function openFile(directory: string, name: string): number {
  try {
    return openRegular(join(directory, name));
  } catch (cause) {
    throw damaged(directory, name, "cannot be opened", cause);
  }
}

function readChecked(
  directory: string,
  name: string,
  expected: string,
  bytesMax: number,
): Uint8Array {
  let bytes: Uint8Array;
  try {
    bytes = readRegular(join(directory, name), bytesMax);
  } catch (cause) {
    throw damaged(directory, name, "cannot be read", cause);
  }
  if (sha256(bytes) === expected) return bytes;
  throw damaged(directory, name, "does not have the checksum that the manifest says");
}

function damaged(directory: string, name: string, what: string, cause?: unknown): Error {
  return damagedSnapshot(directory, `${name} ${what}`, NOTHING_SENT, cause);
}
