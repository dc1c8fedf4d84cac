/** What can be seen of a VMM's process from outside. */
import { readdirSync, readlinkSync } from "node:fs";
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

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    // Closed meanwhile.
    return undefined;
  }
}
