/** What the memory files of a Firecracker microVM hold, and which of their pages are served. */
import { closeSync, fstatSync } from "node:fs";
import { memoryWorkingSetPath, openMemory } from "../guests/firecracker/open.ts";
import type { MemoryLayer } from "../guests/firecracker/open.ts";
import { memoryFilesWord } from "../guests/firecracker/guest-word.ts";
import { readWorkingSet } from "../guests/stored/working-set.ts";
import { totalBytes } from "../ram/block.ts";
import { ANALYSIS_VERSION } from "../report/analysis.ts";
import type { MemoryAnalysis } from "../report/analysis.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";

/** What stat(2) counts disk blocks in. */
const DISK_BLOCK_BYTES = 512;

/** @throws what `openMemory` does: such files have nothing else by which they could be wrong. */
export function surveyMemory(paths: readonly string[]): MemoryAnalysis {
  const { layers, layerOf, blocks } = openMemory(paths);
  try {
    const served = new Array<number>(layers.length + 1).fill(0);
    for (const layer of new Uint8Array(layerOf)) served[layer] = (served[layer] ?? 0) + 1;
    const workingSet = readWorkingSet(memoryWorkingSetPath(paths), blocks);
    const damaged = workingSet === "damaged";
    return {
      ...{ version: ANALYSIS_VERSION, kind: "memory", path: memoryFilesWord(paths) },
      ...{ bytes: totalBytes(blocks), targetPageSize: TARGET_PAGE_SIZE },
      files: layers.map((layer, index) => surveyLayer(layer, served[index + 1] ?? 0)),
      pagesAbsent: served[0] ?? 0,
      workingSetPages: damaged ? null : (workingSet?.length ?? null),
      notes: damaged ? ["The recorded working set is damaged, and not used"] : [],
    };
  } finally {
    for (const { descriptor } of layers) closeSync(descriptor);
  }
}

function surveyLayer(
  { path, descriptor, pages }: MemoryLayer,
  pagesServed: number,
): MemoryAnalysis["files"][number] {
  const diskBytes = fstatSync(descriptor).blocks * DISK_BLOCK_BYTES;
  return { path, diskBytes, pagesStored: pages, pagesServed };
}
