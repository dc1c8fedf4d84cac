/** Makes the index of a saved stream: the work of the index thread, in one pass over the file. */
import { closeSync, fstatSync } from "node:fs";
import { FileReader } from "../../channel/file-reader.ts";
import { pipeReader } from "../../channel/pipe-reader.ts";
import type { RamBlock } from "../../ram/block.ts";
import { checkPackageHead, scanPackageTail } from "../../stream/package.ts";
import { walkStream } from "../../stream/walk.ts";
import { errorChain, PostcopyError, StreamError } from "../../util/errors.ts";
import { dropDraft, openDraft } from "./draft.ts";
import type { Draft } from "./draft.ts";
import { identityOf, sameFile } from "../stored/identity.ts";
import { writeIndex } from "./index-file.ts";
import { readMappedBlock } from "./mapped.ts";
import type { FileIdentity } from "../stored/identity.ts";
import type { OpenedStream } from "./opened.ts";
import { StreamScan } from "./scan.ts";
import { MISSING_PAGE } from "./where.ts";

/** What is indexed. Plain data. */
export interface IndexTask {
  path: string;
  identity: FileIdentity;
  /** SHA-256 of the first bytes of the file. */
  opening: string;
  /** Where the stream begins in the file. */
  bodyAt: number;
  /** Descriptor of the unpacked stream; -1 where the file holds it as it is. */
  unpackedFd: number;
  /** What is told meanwhile: `INDEX_PROGRESS_WORDS` f64. */
  progress: SharedArrayBuffer;
}

/** The stream offset that the pass has come to. */
export const INDEX_PROGRESS_AT = 0;
/** 1 while there is a draft with a name, which must not stay behind. */
export const INDEX_PROGRESS_DRAFT = 1;
export const INDEX_PROGRESS_WORDS = 2;

/** An index that is made. The draft is complete, and has no name yet; mapped-ram needs none. */
export interface BuiltIndex {
  stream: OpenedStream;
  draft: Draft | undefined;
  /** Why there is no draft of an index that would have been worth keeping. */
  unkept: string | undefined;
}

/** @throws StreamError for a stream that cannot be served, with the byte; PostcopyError. */
export function buildIndex(task: IndexTask): BuiltIndex {
  const file = new FileReader(task.path, task.bodyAt);
  const packed = task.unpackedFd >= 0;
  let draft: Draft | undefined;
  const progress = new Float64Array(task.progress);
  const openedDraft = (): Draft => {
    if (draft !== undefined) return draft;
    draft = openDraft(task.path);
    if (draft.path !== undefined) progress[INDEX_PROGRESS_DRAFT] = 1;
    return draft;
  };
  const scan = new StreamScan(
    { descriptor: packed ? -1 : file.fd, side: openedDraft },
    (at) => (progress[INDEX_PROGRESS_AT] = at),
  );
  try {
    checkUnchanged(task, file.fd);
    walkStream(packed ? pipeReader(task.unpackedFd, task.path) : file.reader, scan);
    const stream = finish(task, scan, file.fd);
    checkUnchanged(task, file.fd);
    if (scan.isMapped) return { stream, draft: undefined, unkept: undefined };
    const facts = indexFacts({ ...stream, file: task.identity, opening: task.opening }, scan);
    try {
      const made = openedDraft();
      writeIndex(made, facts, { ...stream, sums: stream.sums ?? [] });
      return { stream: { ...stream, sideDescriptor: made.fd }, draft: made, unkept: undefined };
    } catch (error) {
      // Where every page lies in the file itself, the next use has to read it again, and that is all.
      if (scan.sideBytes > 0 || !(error instanceof PostcopyError)) throw error;
      if (draft !== undefined) dropDraft(draft);
      progress[INDEX_PROGRESS_DRAFT] = 0;
      return { stream, draft: undefined, unkept: errorChain(error) };
    }
  } catch (error) {
    if (draft !== undefined) dropDraft(draft);
    closeSync(file.fd);
    throw error;
  }
}

function indexFacts(
  {
    file,
    opening,
    machineType,
    uuid,
    blocks,
  }: OpenedStream & { file: FileIdentity; opening: string },
  { sideBytes }: StreamScan,
): Parameters<typeof writeIndex>[1] {
  return { file, opening, machineType, uuid, blocks, sideBytes };
}

/** What a scan found, if the guest is whole. */
function finish(task: IndexTask, scan: StreamScan, fd: number): OpenedStream {
  const { path, identity } = task;
  const device = scan.devicePackage;
  if (device === undefined) {
    throw new StreamError("NO_DEVICE_STATE", `${path} has no device state`);
  }
  checkPackageHead(device);
  scanPackageTail(device);
  if (scan.isMapped && task.unpackedFd >= 0) {
    const message = `${path} is a compressed file with mapped-ram, whose pages have fixed places`;
    throw new StreamError("UNSUPPORTED_CAPABILITY", message, { hint: "unpack it first" });
  }
  const blocks = scan.blocks.map(({ name, length, pageSize }, index): RamBlock => {
    return { index, name, length, pageSize, address: 0 };
  });
  for (const [index, where] of scan.where.entries()) {
    const block = scan.blocks[index];
    if (block !== undefined) readMappedBlock(fd, block, where);
    const page = where.indexOf(MISSING_PAGE);
    if (page < 0) continue;
    const message = `${path} is no whole guest: the page ${page} of "${block?.name}" is not there`;
    const hint = "it was discarded at the switch and never sent again, or on another channel";
    throw new StreamError("PAGES_MISSING", message, { hint });
  }
  return {
    path,
    machineType: scan.machineType,
    uuid: scan.uuid,
    blocks,
    package: device,
    descriptor: fd,
    sideDescriptor: -1,
    where: scan.where.map(({ buffer }) => buffer),
    sums: scan.isMapped ? undefined : scan.sums.map(({ buffer }) => buffer),
    identity,
  };
}

function checkUnchanged(task: IndexTask, fd: number): void {
  const stats = fstatSync(fd, { bigint: true });
  if (sameFile(task.identity, stats)) return;
  const now = identityOf(stats);
  const how =
    now.size === task.identity.size ? "" : ` from ${task.identity.size} to ${now.size} bytes`;
  throw new PostcopyError("FILE_CHANGED", `${task.path} changed${how} while it was read`, {
    hint: "wait until the guest has been saved completely",
  });
}
