/**
 * The memory of a Firecracker snapshot: `MEM_FILE` of a full one, and on top of it those of diff
 * snapshots, oldest first. A diff has the size of the full file and data only where the guest wrote;
 * everything else of it is a hole. So each page is that of the last file that has it; a page that no
 * file has is zeros.
 */
import { closeSync, fstatSync } from "node:fs";
import { forEachExtent } from "../../../syscalls/extents.ts";
import type { RamBlock } from "../../ram/block.ts";
import { PING_LOADED } from "../../source/stream.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { writePackage } from "../../stream/package.ts";
import { StreamWriter } from "../../stream/writer.ts";
import { PostcopyError, UsageError } from "../../util/errors.ts";
import { openRegular } from "../../util/files.ts";
import { identityOf } from "../stored/identity.ts";
import type { FileIdentity } from "../stored/identity.ts";
import type { GuestInFiles } from "../stored/source-guest.ts";

/** What it says in the stream of whose guest it is: a QEMU refuses it by this. */
export const FIRECRACKER_MACHINE = "firecracker";
/** Its one RAM block; an offset into it is one into the memory file. */
export const MEMORY_BLOCK = "memory";
/** Files in which a page may lie: a byte says which. */
export const LAYERS_MAX = 254;

/** One of the files. */
export interface MemoryLayer {
  path: string;
  /** Open as long as the process lives. */
  descriptor: number;
  identity: FileIdentity;
}

/** A guest's memory that can be served. Plain data: it crosses to workers. */
export interface OpenedMemory extends GuestInFiles {
  blocks: RamBlock[];
  layers: MemoryLayer[];
  /** By page: 0 for zeros, else the number of its layer, from 1. */
  layerOf: SharedArrayBuffer;
}

/**
 * Opens the files of a guest: the full one first.
 * @throws UsageError NO_FILE; PostcopyError BAD_MEMORY_FILE where their sizes cannot be right.
 */
export function openMemory(paths: readonly string[]): OpenedMemory {
  if (paths.length > LAYERS_MAX) {
    throw new UsageError("TOO_MANY_FILES", `At most ${LAYERS_MAX} memory files can be laid over`);
  }
  const layers: MemoryLayer[] = [];
  try {
    for (const path of paths) layers.push(openLayer(path));
    const length = commonSize(layers);
    const layerOf = new SharedArrayBuffer(length / TARGET_PAGE_SIZE);
    for (const [index, layer] of layers.entries()) lay(layer, index + 1, length, layerOf);
    const block = { index: 0, name: MEMORY_BLOCK, length, pageSize: TARGET_PAGE_SIZE, address: 0 };
    return {
      machineType: FIRECRACKER_MACHINE,
      uuid: undefined,
      blocks: [block],
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
  return { path, descriptor, identity: identityOf(fstatSync(descriptor, { bigint: true })) };
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

function lay(
  { descriptor }: MemoryLayer,
  number: number,
  length: number,
  layerOf: SharedArrayBuffer,
): void {
  const pages = new Uint8Array(layerOf);
  forEachExtent(descriptor, length, (start, end) => {
    // Of a file system with blocks smaller than a page a part of one is data.
    const first = Math.floor(start / TARGET_PAGE_SIZE);
    pages.fill(number, first, Math.ceil(end / TARGET_PAGE_SIZE));
  });
}

/** What stands in for the device state, which the VMM has read itself. */
function emptyPackage(): Uint8Array {
  const writer = new StreamWriter();
  writePackage(writer, () => undefined, [PING_LOADED]);
  return writer.bytes;
}
