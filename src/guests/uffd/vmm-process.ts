/** What can be seen of a VMM's process from outside. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Region } from "./handover.ts";
import { USERFAULT_LINK } from "./receive.ts";

/**
 * Whether a process has a userfaultfd open, as one that has handed its own over should: with the last
 * descriptor of one the kernel gives its memory back, and what is missing is zeros. Undefined where
 * that cannot be seen.
 */
export function keepsUserfault(pid: number): boolean | undefined {
  const directory = `/proc/${pid}/fd`;
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return undefined;
  }
  return names.some((name) => linkOf(`${directory}/${name}`) === USERFAULT_LINK);
}

/**
 * Whether any of the regions is a shared mapping (/proc/PID/maps), as of a memory file that others map.
 * Undefined where that cannot be seen.
 */
export function sharesMemory(pid: number, regions: readonly Region[]): boolean | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/maps`, "latin1");
  } catch {
    return undefined;
  }
  for (const [, from = "", to = ""] of text.matchAll(/^([\da-f]+)-([\da-f]+) ...s/gm)) {
    const [start, end] = [parseInt(from, 16), parseInt(to, 16)];
    if (regions.some(({ address, length }) => address < end && start < address + length)) {
      return true;
    }
  }
  return false;
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    // Closed meanwhile.
    return undefined;
  }
}
