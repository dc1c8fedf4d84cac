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

/**
 * Who keeps. No call blocks, whatever the keeper does: each takes some milliseconds, and KEEPER_LIMIT_MS at
 * most, with a keeper that stands still.
 */
export interface Keeper {
  /** For people: "the holder at /run/vm1.hold". */
  readonly text: string;
  /**
   * Whether it could keep `count` descriptors now: better known before there are any.
   * Rejects with PostcopyError: NOT_KEPT, NO_KEEPER.
   */
  check(count: number): Promise<void>;
  /**
   * Gives duplicates to it; ours stay open. When it resolves they are kept. It ends early, and is a failure
   * as any other, when `signal` is aborted. Rejects with PostcopyError: NOT_KEPT, NO_KEEPER.
   */
  keep(kept: readonly Kept[], signal?: AbortSignal): Promise<KeeperLife>;
  /**
   * What it has. They are the caller's to close, and stay kept as well.
   * Rejects with PostcopyError: NOTHING_KEPT, NO_KEEPER.
   */
  takeBack(): Promise<{ kept: Kept[]; life: KeeperLife }>;
  /** Nobody will need those of these names any more. Rejects with PostcopyError. */
  release(names: readonly string[]): Promise<void>;
}

/**
 * How long what is kept lasts: a descriptor (pidfd) of the keeper's process, the caller's to close, with
 * which it is lost; or for longer than this process; or nobody can tell.
 */
export type KeeperLife = { processFd: number } | "outlives" | "unseen";

/** How long a keeper may take for one call. */
export const KEEPER_LIMIT_MS = 5000;

/** A keeper that does not do what it is for. */
export class KeeperError extends PostcopyError {}

/** Nobody is there: it may have been started a moment ago, and be there soon. */
export class NobodyKeepsError extends KeeperError {}
