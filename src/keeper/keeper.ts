/**
 * Descriptors that outlive this process: a keeper has duplicates of them, and gives them to whoever
 * takes this process's place. It knows them by name, and nothing of what they are for, but that one.
 */
import { PostcopyError } from "../util/errors.ts";

/** The descriptor of the process (pidfd) without which all others are of no more use. */
export const PROCESS_NAME = "process";

/** What names may consist of: they go through text of several formats. */
export const KEPT_NAME = /^[a-z]{1,32}$/;
/** Most descriptors that are kept together. */
export const KEPT_MAX = 8;

/** A descriptor and its name. */
export interface Kept {
  name: string;
  fd: number;
}

/** Who keeps. Calls block for some milliseconds, for KEEPER_LIMIT_MS at most. */
export interface Keeper {
  /** For people: "the holder at /run/vm1.hold". */
  readonly text: string;
  /**
   * Whether it could keep `count` descriptors now: better known before there are any.
   * @throws PostcopyError: NOT_KEPT, NO_KEEPER.
   */
  check(count: number): void;
  /**
   * Gives duplicates to it; ours stay open. When it returns they are kept.
   * @throws PostcopyError: NOT_KEPT, NO_KEEPER.
   */
  keep(kept: readonly Kept[]): void;
  /**
   * What it has. They are the caller's to close, and stay kept as well.
   * @throws PostcopyError: NOTHING_KEPT, NO_KEEPER.
   */
  takeBack(): Kept[];
  /** Whether it still has those of these names; what cannot be asked is believed. Throws nothing. */
  holds(names: readonly string[]): boolean;
  /**
   * A descriptor of its process (pidfd), the caller's to close: what is kept is lost with that. -1 for a
   * keeper that outlives this process, or of which none is to be had.
   * @throws PostcopyError NO_KEEPER.
   */
  openProcess(): number;
  /** Nobody will need those of these names any more. @throws PostcopyError. */
  release(names: readonly string[]): void;
}

/** How long a keeper may take for one call. */
export const KEEPER_LIMIT_MS = 5000;

/** A keeper that does not do what it is for. */
export class KeeperError extends PostcopyError {}

/** Nobody is there: it may have been started a moment ago, and be there soon. */
export class NobodyKeepsError extends KeeperError {}
