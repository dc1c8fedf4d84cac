/** A saved file, recognised; and its index, if there is one that is of this very file. */
import { createHash } from "node:crypto";
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { FileReader } from "../../channel/file-reader.ts";
import type { RamBlock } from "../../ram/block.ts";
import { readSavedFile } from "../../stream/saved-file.ts";
import type { SavedFile } from "../../stream/saved-file.ts";
import { openRegular } from "../../util/files.ts";
import { indexPath } from "./draft.ts";
import { identityOf } from "../stored/identity.ts";
import { readIndex } from "./index-file.ts";
import type { FileIdentity } from "../stored/identity.ts";
import type { OpenedStream } from "./opened.ts";

/** Bytes of the file whose checksum an index is bound to. */
const OPENING_BYTES = 64 * 1024;

/** A file that a guest was saved in. */
export interface RecognisedFile {
  path: string;
  saved: SavedFile;
  identity: FileIdentity;
  /** SHA-256 of the first bytes. */
  opening: string;
}

/** @throws UsageError NO_FILE, StreamError for a file that is no saved guest. */
export function recogniseFile(path: string): RecognisedFile {
  using file = new FileReader(path);
  const identity = identityOf(fstatSync(file.fd, { bigint: true }));
  const opening = openingOf(file.fd);
  return { path, saved: readSavedFile(file.reader), identity, opening };
}

function openingOf(fd: number): string {
  const bytes = new Uint8Array(OPENING_BYTES);
  const got = readSync(fd, bytes, 0, OPENING_BYTES, 0);
  return createHash("sha256").update(bytes.subarray(0, got)).digest("hex");
}

/** The guest, if its index is beside the file; a string says why that cannot be used. */
export function openIndexed(file: RecognisedFile): OpenedStream | string | undefined {
  let fd: number;
  try {
    fd = openRegular(indexPath(file.path));
  } catch {
    return undefined;
  }
  const content = readIndex(fd);
  const problem = typeof content === "string" ? content : staleness(file, content.head);
  if (problem !== undefined || typeof content === "string") {
    closeSync(fd);
    return problem;
  }
  const blocks = content.head.blocks.map((block, index): RamBlock => {
    return { ...block, index, address: 0 };
  });
  const { path, identity } = file;
  const { machineType, uuid } = content.head;
  const { where, sums, package: device } = content;
  const descriptor = openSync(path, "r");
  return {
    ...{ path, machineType, uuid, blocks, package: device, descriptor, sideDescriptor: fd },
    ...{ where, sums, identity },
  };
}

function staleness(
  { identity, opening }: RecognisedFile,
  head: { file: FileIdentity; opening: string },
): string | undefined {
  const { size, mtimeNs, inode, device } = head.file;
  const same =
    size === identity.size &&
    mtimeNs === identity.mtimeNs &&
    inode === identity.inode &&
    device === identity.device;
  return same && opening === head.opening
    ? undefined
    : "is of another file, or of an earlier state";
}
