/** Something to analyse becomes an analysis, on a thread of its own. */
import { statSync } from "node:fs";
import type { AnalysisTask } from "../analyze/analyse.ts";
import { FileReader } from "../channel/file-reader.ts";
import { unpack } from "../channel/unpack.ts";
import { parseMemoryFiles } from "../guests/firecracker/guest-word.ts";
import type { Analysis, StreamAnalysis } from "../report/analysis.ts";
import { readSavedFile } from "../stream/saved-file.ts";
import { PostcopyError, UsageError } from "../util/errors.ts";
import { Thread, ThreadError } from "./thread.ts";

/** What memory files, by which nobody could know them, are named with. */
const MEMORY_PREFIX = "firecracker:";
/** The word for standard input. */
const PIPE_WORD = "-";
const STANDARD_INPUT_FD = 0;

export interface AnalysisOptions {
  /** Of a snapshot: read every page and compare its checksum. */
  verify: boolean;
  /** Called once it is under way; `at` says how far, in bytes. */
  reading: (at: () => number) => void;
}

/** Analyses a file, a snapshot's directory, `firecracker:` and files, or "-". @throws UsageError, StreamError, PostcopyError. */
export async function runAnalysis(word: string, options: AnalysisOptions): Promise<Analysis> {
  const progress = new SharedArrayBuffer(8);
  const words = new Float64Array(progress);
  options.reading(() => words[0] ?? 0);
  if (word === PIPE_WORD) {
    const path = "standard input";
    return await onThread({ kind: "pipe", path, progress, fd: STANDARD_INPUT_FD });
  }
  if (isDirectory(word)) {
    const { verify } = options;
    return await onThread({ kind: "snapshot", path: word, progress, verify });
  }
  if (options.verify) {
    const message = `Flag --verify: ${word} is a file, which has no checksums to compare with`;
    throw new UsageError("BAD_VALUE", message, { hint: "leave it out; snapshots have them" });
  }
  if (!word.startsWith(MEMORY_PREFIX)) return await analyseFile(word, progress);
  const files = parseMemoryFiles(word.slice(MEMORY_PREFIX.length));
  return await onThread({ kind: "memory", path: word, progress, files });
}

async function analyseFile(path: string, progress: SharedArrayBuffer): Promise<Analysis> {
  const saved = recognise(path);
  const { compression, bodyAt } = saved;
  if (compression === undefined) {
    return await onThread({ kind: "file", path, progress, unpackedFd: -1 });
  }
  using unpacking = unpack(path, bodyAt, compression);
  const task = { kind: "file", path, progress, unpackedFd: unpacking.fd } as const;
  const analysis = (await onThread(task).catch(async (error: unknown) => {
    // A body that is damaged ends early, and that it is damaged is the better reason.
    if (error instanceof ThreadError && error.code === "TRUNCATED") await unpacking.done;
    throw error;
  })) as StreamAnalysis;
  // What was not read to its end is broken off, which is no failure of its own.
  if (analysis.problem !== null && analysis.problem.code !== "TRUNCATED") return analysis;
  try {
    await unpacking.done;
    return analysis;
  } catch (error) {
    if (!(error instanceof PostcopyError)) throw error;
    const { code, message, hint = null } = error;
    return { ...analysis, complete: false, problem: { code, message, hint } };
  }
}

function recognise(path: string) {
  using file = new FileReader(path);
  return readSavedFile(file.reader);
}

async function onThread(task: AnalysisTask): Promise<Analysis> {
  const thread = new Thread<AnalysisTask, never, Analysis>("analyze", () => {});
  try {
    return await thread.run(task);
  } finally {
    thread.end();
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
