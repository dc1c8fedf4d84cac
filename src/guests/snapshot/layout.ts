/**
 * What a snapshot directory holds. Names of files come from this program alone: a RAM block is
 * stored under its number, whatever it is called in the stream.
 *
 *     manifest.json   what there is, and its checksums. Written last, by a rename: a directory
 *                     without it is a guest that arrived in part, and is never taken for a whole one
 *     ram-N.bin       RAM block N, sparse: a hole is a page of zeros
 *     ram-N.crc32     one little-endian u32 a target page: the CRC-32 of its bytes. That of a page
 *                     of zeros stands for such a page and no other: see page-sum.ts
 *     package.bin     the device state: LISTEN, devices, PINGs, RUN. As it came; of a guest that
 *                     completed in precopy, made of the sections behind its memory
 *     vm-description.json  QEMU's description of those sections, if one came
 *     arrival.json    of a guest that is taken over and not whole yet: see arrival.ts
 *     lock            empty; only where a directory cannot be locked itself (NFS)
 *     working-set.bin which pages the guest asked for when it was restored: see stored/working-set.ts
 */
import { createHash } from "node:crypto";
import { join } from "node:path";

export const MANIFEST_FILE = "manifest.json";
export const PACKAGE_FILE = "package.bin";
export const VM_DESCRIPTION_FILE = "vm-description.json";
export const ARRIVAL_FILE = "arrival.json";
export const LOCK_FILE = "lock";
const WORKING_SET_FILE = "working-set.bin";
/**
 * Raised when a snapshot of today could be misread by an older program. An entry of the manifest
 * that is not always there does not raise it: a program that does not know it refuses the manifest.
 */
export const SNAPSHOT_VERSION = 1;
export const SNAPSHOT_FORMAT = "postcopy-snapshot";

/** Where a snapshot's recorded working set is kept. */
export function workingSetPath(directory: string): string {
  return join(directory, WORKING_SET_FILE);
}

/** The file of a block's pages. */
export function ramFile(index: number): string {
  return `ram-${index}.bin`;
}

/** Bytes of the checksum of a target page. */
export const SUM_BYTES = 4;

/** The file of a block's checksums. */
export function sumsFile(index: number): string {
  return `ram-${index}.crc32`;
}

/** Whether a name is one that this program gives: what may be removed from a half snapshot. */
export function isSnapshotFile(name: string): boolean {
  return /^((manifest|arrival)\.json(\.tmp)?|package\.bin|vm-description\.json|working-set\.bin(\.\d+\.tmp)?|ram-\d+\.(bin|crc32))$/.test(
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
  /** The guest's `-uuid`, where the source had `validate-uuid` on. */
  uuid?: string | undefined;
  blocks: ManifestBlock[];
  package: ManifestFile;
  /** Only of a guest that completed in precopy, and whose machine describes its devices. */
  vmDescription?: ManifestFile | undefined;
}

/** One file of a manifest that is covered as a whole. */
export interface ManifestFile {
  file: string;
  bytes: number;
  sha256: string;
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
