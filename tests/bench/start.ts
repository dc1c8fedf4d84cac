/** How soon a program is there: the executable as it is copied onto hosts, beside its sources and QEMU. */
import type { Benchmark, Contender } from "../../src/bench/contest.ts";
import { qemuPath } from "../helpers/qemu-versions.ts";
import { FROM_SOURCES } from "../helpers/spawn.ts";
import { EXECUTABLE, needExecutable } from "./executable.ts";
import { OUR_PROGRAM, qemuProgramName } from "./names.ts";
import { isHere, peers } from "./needs.ts";

const OURS = "executable";

/** Starts of one run, of which the mean is told. */
const STARTS = 20;
const QUICK_STARTS = 2;

/** From starting `--version` to its end. */
export function start({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  return Promise.resolve(isHere("start", needExecutable()) ? startsOf(quick) : undefined);
}

function startsOf(quick: boolean): Benchmark {
  const starts = quick ? QUICK_STARTS : STARTS;
  const contender = (name: string, program: string, command: readonly string[]): Contender => {
    return {
      name,
      program,
      run: () => Promise.resolve({ values: { time: time(command, starts) } }),
    };
  };
  return {
    id: "start",
    title: "Starting the program",
    setting: "`--version`, from the start of its process to its end, in the mean of several.",
    axis: null,
    figures: [{ id: "time", title: "time", unit: "ms", better: "less" }],
    contenders: [
      contender(OURS, OUR_PROGRAM, [EXECUTABLE, "--version"]),
      contender("from its sources", OUR_PROGRAM, [...FROM_SOURCES, "--version"]),
      ...peers("start").map((version) => {
        const command = [qemuPath(version), "--version"];
        return contender(`QEMU ${version}`, qemuProgramName(version), command);
      }),
    ],
    targets: [{ figure: "time", of: OURS, to: null, bound: "at most", ratio: 30 }],
    notes: ["All files lie in the page cache."],
  };
}

/** Milliseconds of a start, in the mean. */
function time(command: readonly string[], starts: number): number {
  const startedMs = performance.now();
  for (let index = 0; index < starts; index++) {
    const { success, stderr } = Bun.spawnSync([...command]);
    if (!success) throw new Error(`${command.join(" ")}: ${stderr.toString()}`);
  }
  return (performance.now() - startedMs) / starts;
}
