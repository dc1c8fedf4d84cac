/** A saved file becomes a guest that can be sent: by its kept index, or by reading it once. */
import { rmSync } from "node:fs";
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { unpack } from "../channel/unpack.ts";
import {
  INDEX_PROGRESS_AT,
  INDEX_PROGRESS_DRAFT,
  INDEX_PROGRESS_WORDS,
} from "../guests/stream/build.ts";
import type { BuiltIndex, IndexTask } from "../guests/stream/build.ts";
import { draftPath, dropDraft, publishDraft } from "../guests/stream/draft.ts";
import { openIndexed, recogniseFile } from "../guests/stream/open.ts";
import type { RecognisedFile } from "../guests/stream/open.ts";
import type { OpenedStream } from "../guests/stream/opened.ts";
import { Thread, ThreadError } from "./thread.ts";

/** What opening a stream tells while it is under way. */
export interface StreamNews {
  /** An index lies there that is not used, and why. */
  unusable: (why: string) => void;
  /** The file is read; `at` says how far, in bytes of the stream. */
  reading: (file: RecognisedFile, at: () => number) => void;
}

/** How the guest was opened. */
export interface StreamOpening {
  stream: OpenedStream;
  file: RecognisedFile;
  /** Where the pages are known from: an index kept before, one made now, or the file's own bitmaps. */
  index: "kept" | "made" | "made for this use" | "bitmaps";
  /** Why an index that was made for this use only is not kept; undefined if no place lets us. */
  unkept: string | undefined;
}

/** @throws UsageError, HostError, StreamError, PostcopyError; each says what, and where it can, the byte. */
export async function openStream(path: string, news: StreamNews): Promise<StreamOpening> {
  const file = recogniseFile(path);
  const kept = openIndexed(file);
  if (typeof kept === "object") return { stream: kept, file, index: "kept", unkept: undefined };
  if (kept !== undefined) news.unusable(kept);
  const { stream, draft, unkept } = await build(file, news);
  if (unkept !== undefined) return { stream, file, index: "made for this use", unkept };
  if (draft === undefined) return { stream, file, index: "bitmaps", unkept };
  const index = publishDraft(draft, path) ? "made" : "made for this use";
  return { stream, file, index, unkept };
}

async function build(file: RecognisedFile, news: StreamNews): Promise<BuiltIndex> {
  const { path, identity, opening, saved } = file;
  const { compression, bodyAt } = saved;
  using unpacking = compression === undefined ? undefined : unpack(path, bodyAt, compression);
  const progress = new SharedArrayBuffer(8 * INDEX_PROGRESS_WORDS);
  const words = new Float64Array(progress);
  // An interrupt ends the process where it stands, and the draft with it.
  const interrupted = (): void => {
    if (words[INDEX_PROGRESS_DRAFT] === 1) rmSync(draftPath(path), { force: true });
  };
  process.once("exit", interrupted);
  const thread = new Thread<IndexTask, never, BuiltIndex>("index", () => {});
  try {
    news.reading(file, () => words[INDEX_PROGRESS_AT] ?? 0);
    const unpackedFd = unpacking?.fd ?? -1;
    const task = { path, identity, opening, bodyAt, unpackedFd, progress };
    const built = await thread.run(task).catch(async (error: unknown) => {
      // A body that is damaged ends early, and that it is damaged is the better reason.
      const ended = error instanceof ThreadError && error.code === "TRUNCATED";
      if (ended) await unpacking?.done;
      throw error;
    });
    await unpacking?.done.catch((error: unknown) => {
      if (built.draft !== undefined) dropDraft(built.draft);
      closeDescriptor(built.stream.descriptor);
      throw error;
    });
    return built;
  } finally {
    process.off("exit", interrupted);
    thread.end();
  }
}
