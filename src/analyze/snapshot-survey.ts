/**
 * A snapshot of ours, looked through: each file for itself, so that one that is damaged does not
 * hide what is wrong with the others. Nothing is changed, and nothing is kept in memory but sums.
 */
import { closeSync, fstatSync } from "node:fs";
import { join } from "node:path";
import { readAt } from "../../syscalls/io.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import { diskBytes } from "../guests/snapshot/directory.ts";
import { sha256, workingSetPath } from "../guests/snapshot/layout.ts";
import type { Manifest, ManifestBlock } from "../guests/snapshot/layout.ts";
import { readManifest } from "../guests/snapshot/manifest.ts";
import { readWorkingSet } from "../guests/stored/working-set.ts";
import { pageSum } from "../guests/stored/page-sum.ts";
import { ANALYSIS_VERSION } from "../report/analysis.ts";
import type { Problem, SnapshotAnalysis } from "../report/analysis.ts";
import {
  PACKAGE_BYTES_MAX,
  TARGET_PAGE_SIZE,
  VM_DESCRIPTION_BYTES_MAX,
} from "../stream/constants.ts";
import { byteString } from "../stream/reader.ts";
import { PostcopyError } from "../util/errors.ts";
import { openRegular, readRegular } from "../util/files.ts";
import { analysePackage } from "./devices.ts";

/** Bytes of a RAM file that are read at once. */
const STEP_BYTES = 1024 * 1024;
/** Damaged pages that are named; all are counted. */
const PAGES_NAMED_MAX = 16;

const HINT = "take the snapshot again, or restore the file from a copy";

/** What a survey needs beside the directory. */
export interface SnapshotSurveyOptions {
  /** Read every page, and compare its checksum. */
  verify: boolean;
  /** Told the bytes of memory that are verified so far. */
  progress: (bytes: number) => void;
}

/** @throws UsageError NO_SNAPSHOT, PostcopyError DAMAGED_SNAPSHOT for a manifest that is not valid. */
export function surveySnapshot(
  directory: string,
  { verify, progress }: SnapshotSurveyOptions,
): SnapshotAnalysis {
  const manifest = readManifest(directory);
  const problems: Problem[] = [];
  const report = (message: string): void => {
    problems.push({ code: "DAMAGED_SNAPSHOT", message, hint: HINT });
  };
  let verified = 0;
  const blocks = manifest.blocks.map((block): SnapshotAnalysis["blocks"][number] => {
    const sums = readSums(directory, block, report);
    const fd = openRam(directory, block, report);
    let pagesDamaged: number | null = null;
    if (verify && sums !== undefined && fd >= 0) {
      pagesDamaged = verifyPages(fd, block, sums, report, (bytes) => progress(verified + bytes));
      verified += block.length;
    }
    if (fd >= 0) closeSync(fd);
    const { name, length, pageSize, file, pagesStored } = block;
    return { name, bytes: length, pageSize, file, pagesStored, pagesDamaged };
  });
  const { file, sha256: digest } = manifest.package;
  const bytes = readChecked(directory, file, digest, PACKAGE_BYTES_MAX, report);
  const description = readDescription(directory, manifest, report);
  const device = bytes === undefined ? undefined : readPackage(bytes, description, report);
  const workingSet = workingSetOf(directory, manifest.blocks);
  return {
    ...{ version: ANALYSIS_VERSION, kind: "snapshot", path: directory },
    ...{ diskBytes: diskBytes(directory), program: manifest.program },
    ...{ createdAt: manifest.createdAt, machineType: manifest.machineType },
    ...{ targetPageSize: manifest.targetPageSize, uuid: manifest.uuid ?? null, blocks },
    package: device === undefined ? null : { bytes: bytes?.length ?? 0, pings: device.pings },
    devices: device?.devices ?? null,
    descriptionBytes: manifest.vmDescription?.bytes ?? null,
    workingSetPages: typeof workingSet === "number" ? workingSet : null,
    pagesVerified: verify ? verified / TARGET_PAGE_SIZE : null,
    notes: workingSet === "damaged" ? ["The recorded working set is damaged, and not used"] : [],
    ...{ complete: problems.length === 0, problems },
  };
}

function workingSetOf(
  directory: string,
  blocks: readonly ManifestBlock[],
): number | "damaged" | undefined {
  const memory = blocks.map(({ name, length, pageSize }, index) => {
    return { index, name, length, pageSize, address: 0 };
  });
  const pages = readWorkingSet(workingSetPath(directory), memory);
  return pages === undefined || pages === "damaged" ? pages : pages.length;
}

type Report = (message: string) => void;

function readDescription(
  directory: string,
  { vmDescription }: Manifest,
  report: Report,
): string | undefined {
  if (vmDescription === undefined) return undefined;
  const { file, sha256: digest } = vmDescription;
  const bytes = readChecked(directory, file, digest, VM_DESCRIPTION_BYTES_MAX, report);
  return bytes === undefined ? undefined : byteString(bytes, 0, bytes.length);
}

function readPackage(bytes: Uint8Array, description: string | undefined, report: Report) {
  try {
    const { devices, pings } = analysePackage(bytes, 0, description);
    return { devices, pings: pings.map(({ value }) => value) };
  } catch (error) {
    if (!(error instanceof PostcopyError)) throw error;
    report(error.message);
    return undefined;
  }
}

function readChecked(
  directory: string,
  name: string,
  expected: string,
  bytesMax: number,
  report: Report,
): Uint8Array | undefined {
  let bytes: Uint8Array;
  try {
    bytes = readRegular(join(directory, name), bytesMax);
  } catch (error) {
    report(`${name} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
  if (sha256(bytes) === expected) return bytes;
  report(`${name} does not have the checksum that the manifest says`);
  return undefined;
}

function readSums(
  directory: string,
  { sums, sumsSha256, length }: ManifestBlock,
  report: Report,
): Uint32Array | undefined {
  const pages = length / TARGET_PAGE_SIZE;
  const bytes = readChecked(directory, sums, sumsSha256, 4 * pages, report);
  if (bytes === undefined) return undefined;
  if (bytes.length === pages * 4) return new Uint32Array(bytes.slice().buffer);
  report(`${sums} has ${bytes.length} bytes for ${pages} pages`);
  return undefined;
}

/** The descriptor of a block's file, -1 where it is not there or not of its size. */
function openRam(directory: string, { file, length }: ManifestBlock, report: Report): number {
  let fd: number;
  try {
    fd = openRegular(join(directory, file));
  } catch (error) {
    report(`${file} cannot be opened: ${error instanceof Error ? error.message : String(error)}`);
    return -1;
  }
  const { size } = fstatSync(fd);
  if (size === length) return fd;
  closeSync(fd);
  report(`${file} has ${size} bytes, its block has ${length}`);
  return -1;
}

/** Compares every page with its checksum; gives how many are damaged. */
function verifyPages(
  fd: number,
  { file, name, length }: ManifestBlock,
  sums: Uint32Array,
  report: Report,
  progress: (bytes: number) => void,
): number {
  const scratch = mapScratch(STEP_BYTES);
  let damaged = 0;
  for (let done = 0; done < length; done += STEP_BYTES) {
    const wanted = Math.min(STEP_BYTES, length - done);
    const got = readAt(fd, scratch.address, wanted, done);
    if (got !== wanted) {
      const why = got < 0 ? new SyscallError("pread", -got, file).message : "it is cut off";
      report(`${file} cannot be read at byte ${done}: ${why}`);
      return damaged + (length - done) / TARGET_PAGE_SIZE;
    }
    for (let at = 0; at < wanted; at += TARGET_PAGE_SIZE) {
      const page = (done + at) / TARGET_PAGE_SIZE;
      if (pageSum(scratch.bytes.subarray(at, at + TARGET_PAGE_SIZE)) === sums[page]) continue;
      damaged += 1;
      if (damaged > PAGES_NAMED_MAX) continue;
      report(`The page at ${done + at} of ${file} (${name}) does not have its checksum`);
    }
    progress(done + wanted);
  }
  if (damaged > PAGES_NAMED_MAX) {
    report(`${damaged - PAGES_NAMED_MAX} more pages of ${file} do not have their checksums`);
  }
  return damaged;
}
