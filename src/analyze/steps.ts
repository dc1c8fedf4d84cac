/** The commands and sections of a stream in their order, what repeats itself in one line. */
import type { StreamAnalysis } from "../report/analysis.ts";
import { commandName } from "../stream/command.ts";
import type { Command } from "../stream/command.ts";
import { readHello } from "../stream/hello.ts";
import { formatBytes, formatCount, formatPageSize } from "../util/units.ts";

/** Steps that are listed; a migration has some tens. */
const STEPS_MAX = 1000;

type Step = StreamAnalysis["steps"][number];

export class Steps {
  readonly list: Step[] = [];
  omitted = 0;

  add(at: number, what: string, detail: string | null = null, inPackage = false): void {
    const last = this.list.at(-1);
    const again = last?.what === what && last.detail === detail && last.inPackage === inPackage;
    if (this.omitted === 0 && again) last.times += 1;
    else if (this.list.length < STEPS_MAX)
      this.list.push({ at, what, detail, times: 1, inPackage });
    else this.omitted += 1;
  }

  command(command: Command, at: number): void {
    this.add(at, commandName(command.kind), commandDetail(command));
  }
}

/** What else a command says; null where its name says all, or where it would not be the same twice. */
function commandDetail(command: Command): string | null {
  switch (command.kind) {
    case "ping":
      return pingDetail(command.value);
    case "postcopyAdvise":
      return command.ram === undefined ? "no RAM" : adviseDetail(command.ram.pageSizeSummary);
    case "packaged":
      return formatBytes(command.size);
    case "postcopyRamDiscard":
    case "recvBitmap":
      return `"${command.block}"`;
    default:
      return null;
  }
}

/** The value, and what it means between two ends of postcopy. */
export function pingDetail(value: number): string {
  const hello = readHello(value);
  const number = value > 0xffff ? `0x${value.toString(16)}` : formatCount(value);
  return hello === undefined ? number : `${number}, postcopy's own: ${hello.kind}`;
}

/** The sizes whose bits a summary has. */
function adviseDetail(summary: number): string {
  const sizes: string[] = [];
  for (let size = 1; size <= summary; size *= 2) {
    if (Math.floor(summary / size) % 2 === 1) sizes.push(formatPageSize(size));
  }
  return `pages of ${sizes.join(", ")}`;
}
