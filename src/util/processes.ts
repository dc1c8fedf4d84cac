/** Which process it is: a number alone is given again to another one. */
import { readFileSync } from "node:fs";

/** What tells a process from every other one, also after a restart of the host. */
export interface ProcessIdentity {
  pid: number;
  /** When it was started, in clock ticks since boot (proc(5), field 22 of stat). */
  startTicks: number;
  boot: string;
}

/** What tells one boot of one host from every other: clocks compare only within it. */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
}

/** The process of a number; undefined where none runs (a zombie runs no more) or can be seen. */
export function processAt(pid: number): ProcessIdentity | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined;
  }
  // The second field is the name, in parentheses, which may hold anything.
  const [state, ...fields] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const startTicks = Number(fields[18]);
  if (state === "Z" || state === "X" || !Number.isSafeInteger(startTicks)) return undefined;
  return { pid, startTicks, boot: bootId() };
}

/** This process. */
export function ownProcess(): ProcessIdentity {
  const own = processAt(process.pid);
  if (own === undefined) throw new Error("/proc does not have this process");
  return own;
}

/** Whether just this process still runs. */
export function isAlive({ pid, startTicks, boot }: ProcessIdentity): boolean {
  const now = processAt(pid);
  return now !== undefined && now.startTicks === startTicks && now.boot === boot;
}

/** What a shell was started for: one that has not made way for it waits for it, its only child. */
export function startedByShell(pid: number): number {
  try {
    const isShell = readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "sh";
    const child = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
    return isShell && /^\d+$/.test(child) ? Number(child) : pid;
  } catch {
    return pid;
  }
}
