/**
 * What a snapshot directory holds. Names of files come from this program alone: a RAM block is
 * stored under its number, whatever it is called in the stream.
 *
 *     manifest.json   what there is, and its checksums. Written last, by a rename: a directory
 *                     without it is a guest that arrived in part, and is never taken for a whole one
 *     ram-N.bin       RAM block N, sparse: a hole is a page of zeros
 *     ram-N.crc32     one little-endian u32 a target page: the CRC-32 of its bytes. That of a page
 *                     of zeros stands for such a page and no other: see page-sum.ts
 *     package.bin     the device state as it came: LISTEN, devices, PINGs, RUN
 *     working-set.bin which pages the guest asked for when it was restored: see working-set.ts
 */
import { createHash } from "node:crypto";

export const MANIFEST_FILE = "manifest.json";
export const PACKAGE_FILE = "package.bin";
/** Raised when a snapshot of today could be misread by an older program. */
export const SNAPSHOT_VERSION = 1;
export const SNAPSHOT_FORMAT = "postcopy-snapshot";

/** The file of a block's pages. */
export function ramFile(index: number): string {
  return `ram-${index}.bin`;
}

/** The file of a block's checksums. */
export function sumsFile(index: number): string {
  return `ram-${index}.crc32`;
}

/** Whether a name is one that this program gives: what may be removed from a half snapshot. */
export function isSnapshotFile(name: string): boolean {
  return /^(manifest\.json(\.tmp)?|package\.bin|working-set\.bin(\.\d+\.tmp)?|ram-\d+\.(bin|crc32))$/.test(
    name,
  );
}

/** One RAM block of a manifest. */
export interface ManifestBlock {
  name: string;
  length: number;
  pageSize: number;
  file: string;
  sums: string;
  /** SHA-256 of the file of sums: with it every page is covered by the manifest. */
  sumsSha256: string;
  /** Target pages that are not all zeros. */
  pagesStored: number;
}

/** The manifest. */
export interface Manifest {
  format: typeof SNAPSHOT_FORMAT;
  version: number;
  /** The program that wrote it. */
  program: string;
  createdAt: string;
  /** Machine type of the stream's configuration; empty if there was none. */
  machineType: string;
  targetPageSize: number;
  blocks: ManifestBlock[];
  package: { file: string; bytes: number; sha256: string };
}

/** JSON of a block: its name, escaped, and eleven lines more. */
const MANIFEST_BLOCK_BYTES = 2048;
/** JSON of everything else. */
const MANIFEST_REST_BYTES = 4096;

/** Bytes that the manifest of so many blocks has at most. */
export function manifestBytesMax(blocks: number): number {
  return MANIFEST_REST_BYTES + blocks * MANIFEST_BLOCK_BYTES;
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
