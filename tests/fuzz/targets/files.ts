/**
 * What lies in files: a saved stream that is analysed, indexed and served, with a libvirt head or
 * compressed; its index; a snapshot's directory, opened, served and looked through. Whatever page is
 * served is what the model says, or what was kept.
 */
import { closeSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync, zstdCompressSync } from "node:zlib";

import { analyse } from "../../../src/analyze/analyse.ts";
import { unpack } from "../../../src/channel/unpack.ts";
import { SnapshotTable } from "../../../src/guests/snapshot/page-table.ts";
import { openSnapshot } from "../../../src/guests/snapshot/open.ts";
import type { OpenedSnapshot } from "../../../src/guests/snapshot/open.ts";
import { workingSetPath } from "../../../src/guests/snapshot/layout.ts";
import { readWorkingSet } from "../../../src/guests/stored/working-set.ts";
import { StoredPages } from "../../../src/guests/stored/pages.ts";
import type { PageTable } from "../../../src/guests/stored/pages.ts";
import { buildIndex, INDEX_PROGRESS_WORDS } from "../../../src/guests/stream/build.ts";
import { publishDraft } from "../../../src/guests/stream/draft.ts";
import { openIndexed, recogniseFile } from "../../../src/guests/stream/open.ts";
import type { OpenedStream } from "../../../src/guests/stream/opened.ts";
import { StreamTable } from "../../../src/guests/stream/page-table.ts";
import type { RamBlock } from "../../../src/ram/block.ts";
import { libvirtSave } from "../../helpers/libvirt-save.ts";
import type { Layout } from "../layout.ts";
import { edgesLayout, textLayout } from "../layouts.ts";
import { ModelError } from "../layout.ts";
import { readModel } from "../model.ts";
import type { ModelBlock } from "../model-memory.ts";
import type { Material } from "../mutate.ts";
import { Finding, judge, same } from "../target.ts";
import type { Place, Target, Verdict } from "../target.ts";
import { inDirectory, keptOf, knownKept, sealIndex, sealSnapshot, SNAPSHOT_FILES } from "./kept.ts";

const PAGE = 4096;
const ZEROS = new Uint8Array(PAGE);
/** Pages that are read of a guest that says it is larger. */
const PAGES_READ_MAX = 4096;

const STREAM = /^stream\.(?!.*multifd)/;

function isStream(name: string): boolean {
  return STREAM.test(name);
}

/** The verdict of what returns one, or throws. */
export function errors(run: () => Verdict): Verdict {
  try {
    return run();
  } catch (error) {
    if (error instanceof Finding) throw error;
    return judge(error);
  }
}

/** A stream that is analysed: problems are told in the result, with exit code 1. */
function analyseFile(bytes: Uint8Array, place: Place): Verdict {
  const path = join(place.directory, "stream");
  writeFileSync(path, bytes);
  return errors(() => {
    const progress = new SharedArrayBuffer(8);
    const analysis = analyse({ kind: "file", path, progress, unpackedFd: -1 });
    // What is told goes out as JSON.
    JSON.stringify(analysis);
    if (analysis.kind !== "stream") throw new Finding("a file was taken for a snapshot");
    return analysis.problem === null ? "accepted" : { refused: analysis.problem.code };
  });
}

/** A stream that is indexed and served. */
function indexFile(bytes: Uint8Array, place: Place): Verdict {
  const path = join(place.directory, "stream");
  writeFileSync(path, bytes);
  return errors(() => {
    const stream = built(path);
    try {
      compareServed(stream.blocks, new StreamTable(stream), modelBlocks(bytes));
      return "accepted";
    } finally {
      closeStream(stream);
    }
  });
}

/** Indexes a file, and leaves the index beside it. */
export function buildPublished(path: string): OpenedStream {
  return built(path, true);
}

function built(path: string, publish = false): OpenedStream {
  const { saved, identity, opening } = recogniseFile(path);
  const progress = new SharedArrayBuffer(8 * INDEX_PROGRESS_WORDS);
  const { bodyAt } = saved;
  const index = buildIndex({ path, identity, opening, bodyAt, unpackedFd: -1, progress });
  if (publish && index.draft !== undefined) publishDraft(index.draft, path);
  return index.stream;
}

function closeStream({ descriptor, sideDescriptor }: OpenedStream): void {
  closeSync(descriptor);
  if (sideDescriptor >= 0) closeSync(sideDescriptor);
}

function modelBlocks(bytes: Uint8Array): readonly ModelBlock[] | undefined {
  try {
    return readModel(bytes).blocks;
  } catch (error) {
    if (error instanceof ModelError) return undefined;
    throw error;
  }
}

/** Reads every page as a source would; `model` undefined: only that none is made up. */
function compareServed(
  blocks: readonly RamBlock[],
  table: PageTable,
  model: readonly ModelBlock[] | undefined,
): void {
  const pages = new StoredPages(table);
  const page = new Uint8Array(PAGE);
  for (const block of blocks) {
    const expected = model?.[block.index];
    for (let n = 0; n < Math.min(block.length / PAGE, PAGES_READ_MAX); n++) {
      pages.copyPage(block, n * PAGE, page, 0);
      if (expected === undefined || same(page, expected.pages.get(n) ?? ZEROS)) continue;
      throw new Finding(`page ${n} of ${block.name} is served, and is not what was saved`);
    }
  }
}

/** The head of a save image before a stream. */
function withHead({ name, bytes, layout }: Material): Material {
  const head = libvirtSave({ format: "raw", xml: "<domain type='qemu'/>", cookie: "<cookie/>" });
  const fields = [
    ...edgesLayout(head, 160, 0).fields,
    ...layout.fields.map((field) => ({ ...field, at: field.at + head.length })),
  ];
  const spans = layout.spans.map(({ at, end, what }) => {
    return { at: at + head.length, end: end + head.length, what };
  });
  const all = new Uint8Array(Buffer.concat([head, bytes]));
  return { name, bytes: all, layout: { fields, spans } };
}

/** A file that is unpacked on the way: damage to what is packed is told as such. */
async function unpackFile(bytes: Uint8Array, place: Place): Promise<Verdict> {
  const path = join(place.directory, "packed");
  writeFileSync(path, bytes);
  const plain = join(place.directory, "stream");
  try {
    const { saved } = recogniseFile(path);
    if (saved.compression !== "gzip" && saved.compression !== "zstd") {
      return analyseFile(bytes, place);
    }
    using unpacking = unpack(path, saved.bodyAt, saved.compression);
    const parts: Uint8Array[] = [];
    for await (const part of Bun.file(unpacking.fd).stream()) parts.push(part);
    await unpacking.done;
    writeFileSync(plain, Buffer.concat(parts));
  } catch (error) {
    return judge(error);
  }
  return analyseFile(new Uint8Array(readFileSync(plain)), place);
}

function packed(kind: "gzip" | "zstd") {
  return ({ name, bytes }: Material): Material => {
    const all = new Uint8Array(kind === "gzip" ? gzipSync(bytes) : zstdCompressSync(bytes));
    return { name, bytes: all, layout: edgesLayout(all) };
  };
}

const SAVED = "stream";

/** The index of a recording, whose file is beside it. */
function indexOf(material: Material): Material {
  keptOf(material.bytes);
  return inDirectory((directory) => {
    const path = join(directory, SAVED);
    writeFileSync(path, material.bytes);
    closeStream(built(path, true));
    const bytes = new Uint8Array(readFileSync(`${path}.postcopy-index`));
    return { ...material, bytes, layout: edgesLayout(bytes, 64, 512) };
  });
}

/**
 * A mutated index beside its stream, with the right digest, as by somebody who wants it to be
 * believed: the checksums in it are then his. No page may be served that has another sum than it
 * says, and nothing else may break.
 */
function openIndex(bytes: Uint8Array, place: Place): Verdict {
  const path = join(place.directory, SAVED);
  writeFileSync(path, knownKept().stream);
  writeFileSync(`${path}.postcopy-index`, sealIndex(bytes, path));
  return errors(() => {
    const opened = openIndexed(recogniseFile(path));
    if (opened === undefined) throw new Finding("the index was not seen");
    if (typeof opened === "string") return { refused: "UNUSABLE_INDEX" };
    try {
      compareServed(opened.blocks, new StreamTable(opened), undefined);
      return "accepted";
    } finally {
      closeStream(opened);
    }
  });
}

/** A snapshot's directory with one file mutated, and the checksums of the others right or not. */
function openKept(file: (typeof SNAPSHOT_FILES)[number], sealed: boolean) {
  return (bytes: Uint8Array, place: Place): Verdict => {
    const directory = join(place.directory, "kept");
    const kept = knownKept();
    for (const [name, content] of kept.files) writeFileSync(join(directory, name), content);
    writeFileSync(join(directory, file), bytes);
    if (sealed) sealSnapshot(directory);
    const looked = errors(() => {
      const progress = new SharedArrayBuffer(8);
      const analysis = analyse({ kind: "snapshot", path: directory, verify: true, progress });
      JSON.stringify(analysis);
      if (analysis.kind !== "snapshot") throw new Finding("a snapshot was taken for a file");
      return analysis.complete ? "accepted" : { refused: "DAMAGED_SNAPSHOT" };
    });
    const served = errors(() => {
      const snapshot = openSnapshot(directory);
      try {
        readWorkingSet(workingSetPath(directory), snapshot.blocks);
        const model = sealed ? undefined : kept.blocks;
        compareServed(snapshot.blocks, new SnapshotTable(snapshot), model);
        return "accepted";
      } finally {
        closeSnapshot(snapshot);
      }
    });
    return served === "accepted" ? looked : served;
  };
}

function closeSnapshot({ descriptors }: OpenedSnapshot): void {
  descriptors.forEach((fd) => closeSync(fd));
}

function snapshotFile(file: (typeof SNAPSHOT_FILES)[number]) {
  return (material: Material): Material => {
    const bytes = keptOf(material.bytes).files.get(file) ?? new Uint8Array(0);
    const isText = file.endsWith(".json");
    const layout: Layout = isText ? textLayout(bytes) : edgesLayout(bytes, 128, 64);
    return { name: `${material.name} ${file}`, bytes, layout };
  };
}

const KEPT = "stream.7.2.precopy";
const isKept = (name: string): boolean => name === KEPT;

export const FILE_TARGETS: readonly Target[] = [
  {
    name: "analyze",
    share: 14,
    takes: (name) => /^(stream|broken)\./.test(name),
    run: analyseFile,
  },
  { name: "analyze, libvirt", share: 3, takes: isStream, prepare: withHead, run: analyseFile },
  {
    name: "analyze, mapped-ram",
    share: 1,
    takes: (n) => n.startsWith("mapped."),
    run: analyseFile,
  },
  { name: "saved stream served", share: 8, takes: isStream, run: indexFile },
  { name: "saved image served", share: 2, takes: isStream, prepare: withHead, run: indexFile },
  { name: "mapped-ram served", share: 1, takes: (n) => n.startsWith("mapped."), run: indexFile },
  { name: "packed, gzip", share: 1, takes: isKept, prepare: packed("gzip"), run: unpackFile },
  { name: "packed, zstd", share: 1, takes: isKept, prepare: packed("zstd"), run: unpackFile },
  {
    ...{ name: "index", share: 4, takes: isKept, prepare: indexOf },
    run: openIndex,
  },
  ...SNAPSHOT_FILES.flatMap((file): Target[] => {
    const share = file === "manifest.json" ? 3 : 1;
    const prepare = snapshotFile(file);
    return [
      { name: `snapshot, ${file}`, share, takes: isKept, prepare, run: openKept(file, false) },
      {
        name: `snapshot, ${file}, sealed`,
        share: 1,
        takes: isKept,
        prepare,
        run: openKept(file, true),
      },
    ];
  }),
];
