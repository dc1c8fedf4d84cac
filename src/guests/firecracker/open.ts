/**
 * The memory of a Firecracker snapshot: `MEM_FILE` of a full one, and on top of it those of diff
 * snapshots, oldest first. A diff has the size of the full file and data only where the guest wrote;
 * everything else of it is a hole. So each page is that of the last file that has it; a page that no
 * file has is zeros.
 */
import { closeSync, fstatSync } from "node:fs";
import { forEachExtent } from "../../../syscalls/extents.ts";
import { isBeingWritten } from "../../../syscalls/lease.ts";
import type { RamBlock } from "../../ram/block.ts";
import { PING_LOADED } from "../../source/stream.ts";
import { checkTables } from "../../ram/tables.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { writePackage } from "../../stream/package.ts";
import { StreamWriter } from "../../stream/writer.ts";
import { PostcopyError, UsageError } from "../../util/errors.ts";
import { openRegular } from "../../util/files.ts";
import { identityOf } from "../stored/identity.ts";
import type { FileIdentity } from "../stored/identity.ts";
import { FIRECRACKER_MACHINE } from "../stored/memory-only.ts";
import type { GuestInFiles } from "../stored/source-guest.ts";

/** Its one RAM block; an offset into it is one into the memory file. */
export const MEMORY_BLOCK = "memory";
/** Files in which a page may lie: a byte says which. */
const LAYERS_MAX = 254;
/** The byte that says so, and the bits of the source. */
const BYTES_A_PAGE = 2;

/** One of the files. */
export interface MemoryLayer {
  path: string;
  /** Open as long as the process lives. */
  descriptor: number;
  identity: FileIdentity;
  /** Pages that are no hole. */
  pages: number;
}

/** A guest's memory that can be served. Plain data: it crosses to workers. */
export interface OpenedMemory extends GuestInFiles {
  blocks: RamBlock[];
  layers: MemoryLayer[];
  /** By page: 0 for zeros, else the number of its layer, from 1. */
  layerOf: SharedArrayBuffer;
}

/**
 * Where the working set of a guest in these files is recorded: beside the last of them, as what a
 * guest asks for follows from the state that it was saved in.
 */
export function memoryWorkingSetPath(paths: readonly string[]): string {
  return `${paths.at(-1)}.postcopy-working-set`;
}

/**
 * Opens the files of a guest: the full one first.
 * @throws UsageError NO_FILE, TOO_MANY_FILES; PostcopyError FILE_IN_USE, BAD_MEMORY_FILE where their
 * sizes cannot be right, NOT_SPARSE.
 */
export function openMemory(paths: readonly string[]): OpenedMemory {
  if (paths.length > LAYERS_MAX) {
    throw new UsageError("TOO_MANY_FILES", `At most ${LAYERS_MAX} memory files can be laid over`);
  }
  const layers: MemoryLayer[] = [];
  try {
    for (const path of paths) layers.push(openLayer(path));
    const length = commonSize(layers);
    const blocks = [
      { index: 0, name: MEMORY_BLOCK, length, pageSize: TARGET_PAGE_SIZE, address: 0 },
    ];
    checkTables(blocks, BYTES_A_PAGE);
    const layerOf = new SharedArrayBuffer(length / TARGET_PAGE_SIZE);
    for (const [index, layer] of layers.entries()) lay(layer, index + 1, layerOf);
    return {
      machineType: FIRECRACKER_MACHINE,
      uuid: undefined,
      blocks,
      package: emptyPackage(),
      layers,
      layerOf,
    };
  } catch (error) {
    for (const { descriptor } of layers) closeSync(descriptor);
    throw error;
  }
}

function openLayer(path: string): MemoryLayer {
  let descriptor: number;
  try {
    descriptor = openRegular(path);
  } catch (cause) {
    throw new UsageError("NO_FILE", `The memory file ${path} cannot be opened`, { cause });
  }
  if (isBeingWritten(descriptor)) {
    closeSync(descriptor);
    throw new PostcopyError("FILE_IN_USE", `Another process has ${path} open for writing`, {
      hint: "a snapshot that is still being made is not served: wait until the VMM has answered",
    });
  }
  const identity = identityOf(fstatSync(descriptor, { bigint: true }));
  return { path, descriptor, identity, pages: 0 };
}

function commonSize(layers: readonly MemoryLayer[]): number {
  const [full] = layers;
  if (full === undefined) throw new UsageError("NO_FILE", "There is no memory file");
  const { size } = full.identity;
  if (size === 0 || size % TARGET_PAGE_SIZE !== 0) {
    throw bad(full.path, `has ${size} bytes, which are no whole pages`);
  }
  const other = layers.find(({ identity }) => identity.size !== size);
  if (other === undefined) return size;
  throw bad(other.path, `has ${other.identity.size} bytes, and ${full.path} has ${size}`);
}

function bad(path: string, what: string): PostcopyError {
  return new PostcopyError("BAD_MEMORY_FILE", `${path} ${what}`, {
    hint: "MEM_FILE is the mem_file_path of a full snapshot, each DIFF that of a diff snapshot of it",
  });
}

/**
 * Lays a file over those before it. A diff without any hole would hide them all: it is a full
 * snapshot, or a copy in which what had not changed became zeros.
 */
function lay(layer: MemoryLayer, number: number, layerOf: SharedArrayBuffer): void {
  const pages = new Uint8Array(layerOf);
  forEachExtent(layer.descriptor, layer.identity.size, (start, end) => {
    // Of a file system with blocks smaller than a page a part of one is data.
    const first = Math.floor(start / TARGET_PAGE_SIZE);
    const behind = Math.ceil(end / TARGET_PAGE_SIZE);
    pages.fill(number, first, behind);
    layer.pages += behind - first;
  });
  if (number === 1 || layer.pages < pages.length) return;
  throw new PostcopyError("NOT_SPARSE", `${layer.path} has no holes, so it is no diff snapshot`, {
    hint:
      "what a copy has filled is lost: make it anew from the original (cp --sparse=auto, rsync -S, " +
      "tar -S); a full snapshot is named first, and alone",
  });
}

/** What stands in for the device state, which the VMM has read itself. */
function emptyPackage(): Uint8Array {
  const writer = new StreamWriter();
  writePackage(writer, () => undefined, [PING_LOADED]);
  return writer.bytes;
}
