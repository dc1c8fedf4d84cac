/** What this process holds in memory, from /proc/self/status (proc_pid_status(5)). */
import { readFileSync } from "node:fs";

function statusBytes(field: string): number {
  const text = readFileSync("/proc/self/status", "latin1");
  const match = new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(text);
  return match === null ? 0 : Number(match[1]) * 1024;
}

/** The most that was ever resident (VmHWM), in bytes. */
export function peakResidentBytes(): number {
  return statusBytes("VmHWM");
}
