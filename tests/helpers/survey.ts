/** Analyses of streams that are put together by hand. */
import { writeFileSync } from "node:fs";
import { analyse } from "../../src/analyze/analyse.ts";
import { analysisSchema } from "../../src/report/analysis.ts";
import type { StreamAnalysis } from "../../src/report/analysis.ts";
import { bytesOf } from "./hand-made-stream.ts";
import type { Piece } from "./hand-made-stream.ts";
import type { TemporaryDirectory } from "./temporary-directory.ts";

export interface Survey {
  analyseBytes: (bytes: Uint8Array) => StreamAnalysis;
  analysed: (...pieces: readonly Piece[]) => StreamAnalysis;
}

/** How a stream is analysed that lies in a file of `directory`. */
export function surveyIn(directory: TemporaryDirectory): Survey {
  const analyseBytes = (bytes: Uint8Array): StreamAnalysis => {
    const path = directory.file("stream");
    writeFileSync(path, bytes);
    const progress = new SharedArrayBuffer(8);
    const analysis = analyse({ kind: "file", path, progress, unpackedFd: -1 });
    if (analysis.kind !== "stream") throw new Error("it is no stream");
    return analysisSchema.parse(analysis) as StreamAnalysis;
  };
  return { analyseBytes, analysed: (...pieces) => analyseBytes(bytesOf(...pieces)) };
}
