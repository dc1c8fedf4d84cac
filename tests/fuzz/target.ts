/** What a mutated input is given to, and what may come of it. */
import { PostcopyError } from "../../src/util/errors.ts";
import type { Material } from "./mutate.ts";

/** The program took it, and what it made of it is right; or refused it with a code. */
export type Verdict = "accepted" | { refused: string };

/** The program did what it must not do. */
export class Finding extends Error {
  override readonly name = "Finding";
}

/** What targets may use. */
export interface Place {
  /** A directory of the case's own, empty at first. */
  directory: string;
  /** What was mutated. */
  material: Material;
  /** All that was recorded, for what belongs to it. */
  recordings: readonly Material[];
}

export interface Target {
  name: string;
  /** How many of a hundred cases go to it. */
  share: number;
  /** The recordings it takes, by their names. */
  takes: (name: string) => boolean;
  /** What is mutated of a recording, where it is not just that. */
  prepare?: (recording: Material) => Material;
  run: (bytes: Uint8Array, place: Place) => Verdict | Promise<Verdict>;
}

/**
 * The verdict of what was thrown. Whatever bytes cause is a PostcopyError with a stable code;
 * anything else, a failed system call too, is a finding.
 */
export function judge(error: unknown): Verdict {
  if (error instanceof PostcopyError && /^[A-Z_0-9]+$/.test(error.code)) {
    return { refused: error.code };
  }
  throw new Finding(`not an error of operation: ${String(error)}`, { cause: error });
}

/** Whether two runs of bytes are the same. */
export function same(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}
