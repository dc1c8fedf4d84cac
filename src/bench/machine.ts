/** The machine that benchmarks run on, as their results name it. */
import { cpus, release, totalmem } from "node:os";
import type { Machine } from "./result.ts";

export function thisMachine(): Machine {
  const processors = cpus();
  return {
    processor: processors[0]?.model.trim() ?? "unknown",
    cores: processors.length,
    memoryBytes: totalmem(),
    kernel: release(),
  };
}
