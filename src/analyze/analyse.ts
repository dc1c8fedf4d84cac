/** What lies in files, a pipe or a directory: the work of the thread that analyses. */
import { FileReader } from "../channel/file-reader.ts";
import { pipeReader } from "../channel/pipe-reader.ts";
import type { Analysis, Problem, StreamAnalysis } from "../report/analysis.ts";
import type { StreamReader } from "../stream/reader.ts";
import { readSavedFile } from "../stream/saved-file.ts";
import type { SavedFile } from "../stream/saved-file.ts";
import { walkStream } from "../stream/walk.ts";
import { PostcopyError, StreamError } from "../util/errors.ts";
import { countMappedPages } from "./mapped-pages.ts";
import { surveyMemory } from "./memory-survey.ts";
import { surveySnapshot } from "./snapshot-survey.ts";
import { StreamSurvey } from "./stream-survey.ts";

/** What is analysed. Plain data. */
export type AnalysisTask = {
  /** How it is called: a path, or "standard input". */
  path: string;
  /** One f64: how far it is, in bytes. */
  progress: SharedArrayBuffer;
} & (
  | { kind: "snapshot"; verify: boolean }
  /** `unpackedFd` gives the stream of a compressed file, and is -1 for others. */
  | { kind: "file"; unpackedFd: number }
  | { kind: "pipe"; fd: number }
  | { kind: "memory"; files: readonly string[] }
);

/** @throws UsageError and StreamError for what is nothing of which anything can be told. */
export function analyse(task: AnalysisTask): Analysis {
  const words = new Float64Array(task.progress);
  const progress = (at: number): void => {
    words[0] = at;
  };
  switch (task.kind) {
    case "snapshot":
      return surveySnapshot(task.path, { verify: task.verify, progress });
    case "memory":
      return surveyMemory(task.files);
    case "pipe":
      return analysePipe(task.path, task.fd, progress);
    case "file":
      return analyseFile(task.path, task.unpackedFd, progress);
  }
}

function analysePipe(path: string, fd: number, progress: (at: number) => void): StreamAnalysis {
  const reader = pipeReader(fd, path);
  const saved = readSavedFile(reader);
  if (saved.compression !== undefined) {
    const message = `${path} is compressed (${saved.compression})`;
    throw new StreamError("BAD_MAGIC", message, {
      hint: "give the file by its name, or unpack it",
    });
  }
  return analyseStream({ path, fileBytes: null, fd: -1, saved, reader }, progress);
}

function analyseFile(
  path: string,
  unpackedFd: number,
  progress: (at: number) => void,
): StreamAnalysis {
  using file = new FileReader(path);
  const saved = readSavedFile(file.reader);
  const packed = saved.compression !== undefined;
  const reader = packed ? pipeReader(unpackedFd, path) : file.reader;
  const fd = packed ? -1 : file.fd;
  return analyseStream({ path, fileBytes: file.size, fd, saved, reader }, progress);
}

interface Opened {
  path: string;
  fileBytes: number | null;
  /** Of the file that offsets of the stream are offsets of; -1 where there is none. */
  fd: number;
  saved: SavedFile;
  reader: StreamReader;
}

function analyseStream(opened: Opened, progress: (at: number) => void): StreamAnalysis {
  const { path, fileBytes, fd, saved, reader } = opened;
  const survey = new StreamSurvey(reader.offset, progress);
  let problem: Problem | null = null;
  try {
    walkStream(reader, survey);
    if (fd >= 0) countMapped(fd, survey);
  } catch (error) {
    if (!(error instanceof PostcopyError)) throw error;
    if (!survey.began && saved.libvirt === undefined) throw error;
    problem = { code: error.code, message: error.message, hint: error.hint ?? null };
  }
  const file = { path, fileBytes, compression: saved.compression ?? null, libvirt: headOf(saved) };
  return survey.result(file, { endAt: reader.offset, problem });
}

function headOf({ libvirt }: SavedFile): StreamAnalysis["libvirt"] {
  if (libvirt === undefined) return null;
  const { format, wasRunning, xml, cookie, bodyAt } = libvirt;
  return { format, wasRunning, xml, cookie, streamAt: bodyAt };
}

/** Pages with a fixed place in the file have no records: its bitmaps say which are there. */
function countMapped(fd: number, survey: StreamSurvey): void {
  for (const [index, { block }] of survey.blocks.entries()) {
    if (block.mappedRam === undefined) continue;
    survey.mappedPages(index, countMappedPages(fd, block.name, block.mappedRam));
  }
}
