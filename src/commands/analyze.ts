/** `postcopy analyze`: what is in a stream, a saved file or a snapshot. */
import * as z from "zod";
import { renderAnalysis } from "../analyze/render.ts";
import type { Analysis, Problem } from "../report/analysis.ts";
import { runAnalysis } from "../threads/analysis.ts";
import { EXIT, PostcopyError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { stderrTerminal } from "../util/terminal.ts";
import { formatBytes } from "../util/units.ts";
import { checkCommon, COMMON_FLAGS, openOutput } from "./common.ts";
import { defineStrictCommand, requiredWord, switchFlag } from "./strict.ts";

/** How often it is said how far it is. */
const NEWS_INTERVAL_MS = 2000;

export const analyze = defineStrictCommand({
  name: "analyze",
  description: "Say what is in a migration stream, a saved guest or a snapshot",
  flags: {
    file: requiredWord(
      z.string(),
      "A file, a snapshot's directory, firecracker:FILE[,DIFF...], or - for standard input",
    ),
    verify: switchFlag("Of a snapshot: compare every page with its checksum"),
    ...COMMON_FLAGS,
  },
  notes: [
    "FILE is what a QEMU source sent or saved, also by postcopy, or a libvirt save image; it may be",
    "compressed. What is damaged is named with its byte, behind all that stands before it; the exit",
    "code is 1 then.",
  ].join("\n"),
  example: [
    "postcopy analyze guest.save",
    "postcopy analyze --verify /var/lib/vm1",
    "postcopy analyze firecracker:vm.mem,vm.diff",
    "ssh host cat guest.stream | postcopy analyze --json -",
  ].join("\n"),
  check: checkCommon,
  run: async (options) => {
    const { file } = options;
    const { events } = await openOutput(options);
    let timer: ReturnType<typeof setInterval> | undefined;
    let analysis: Analysis;
    try {
      analysis = await runAnalysis(file, {
        verify: options.verify,
        reading: (at) => {
          timer = setInterval(() => {
            log.info(`Reading ${file}: ${formatBytes(at())}`);
          }, NEWS_INTERVAL_MS);
        },
      });
    } finally {
      clearInterval(timer);
    }
    events.emit({ event: "analysis", analysis });
    if (!options.quiet) {
      stderrTerminal.writeLines(renderAnalysis(analysis, stderrTerminal.paint));
    }
    const problem = firstProblem(analysis);
    if (problem === undefined) return EXIT.ok;
    const { code, message, hint } = problem;
    throw new PostcopyError(code, message, hint === null ? {} : { hint });
  },
});

function firstProblem(analysis: Analysis): Problem | undefined {
  switch (analysis.kind) {
    case "stream":
      return analysis.problem ?? undefined;
    case "snapshot":
      return analysis.problems[0];
    case "memory":
      return undefined;
  }
}
