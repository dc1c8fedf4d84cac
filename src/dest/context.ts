/** What the destination's loops work with, put together once by the threads that run them. */
import type { Channel } from "../channel/channel.ts";
import type { SharedBytes } from "../ram/shared-bytes.ts";
import type { RamBlock } from "../ram/block.ts";
import { StoppedError } from "../channel/channel.ts";
import { DEST, DEST_PHASES } from "../report/counters.ts";
import { PostcopyError } from "../util/errors.ts";
import type { DestGuest } from "./guest.ts";
import type { ReturnPath } from "./return-path.ts";
import { WORD } from "./shared.ts";
import type { DestShared, PageStateData } from "./shared.ts";

/** Phases that somebody may wait for. */
type AnnouncedPhase = "precopy" | "device" | "postcopy" | "paused" | "drained";

/** What happens while a guest arrives, for people and for JSON output. */
export type DestEvent =
  | { kind: "phase"; phase: AnnouncedPhase }
  | { kind: "guest"; blocks: readonly RamBlock[] }
  /** Whether pages that are asked for have one of their own, and how many the push comes on. */
  | { kind: "channels"; urgentChannel: boolean; pushChannels: number }
  /** The source has come back over another link, from there. */
  | { kind: "returned"; peer: string }
  | { kind: "running" }
  | { kind: "warning"; message: string };

/** What the other threads need to know of the guest's memory. Plain data. */
export interface GuestMemory {
  blocks: readonly RamBlock[];
  pages: PageStateData;
  /** Where it lies (AddressMap); empty for a guest that is stored. */
  map: SharedBytes;
  /** It is the memory of a VMM: another process's. */
  foreign: boolean;
  /** Where its events are read into, so that they outlive this process; undefined: anywhere. */
  eventsAt: number | undefined;
  /** What of FEATURE it needs of its source. */
  needs: number;
  /** The source is this program: further connections may be its urgent channel. */
  sourceIsOurs: boolean;
  /** Section number of RAM in this stream. */
  ramSectionId: number;
  /** Of the guest, for its sinks. */
  sinkData: unknown;
}

/** What the incoming thread works with. */
export interface IncomingContext {
  channel: Channel;
  returnPath: Pick<ReturnPath, "send" | "addRequest" | "flushRequests">;
  guest: DestGuest;
  shared: DestShared;
  /** What this end can do (FEATURE of stream/hello.ts). */
  features: number;
  /**
   * How long the source may take where it has no reason to: for the opening with the list of RAM
   * blocks, and for device state beside the time that its bytes take.
   */
  linkTimeoutMs: number;
  /** Whether another may be waited for instead of one who does not finish the opening in time. */
  othersMayCome: boolean;
  /** Where the main channel meets multifd ones (multifd-barrier.ts); undefined if there are none. */
  multifd: { flush: () => void; end: () => void } | undefined;
  /** Locks the process's memory except during postcopy (`--mlock`). */
  lockMemory: boolean;
  /** Tells the listen and fault threads what they need before they can start. */
  announceMemory: (memory: GuestMemory) => void;
  emit: (event: DestEvent) => void;
}

/** Notes the phase for progress, and tells of it. */
export function setPhase(
  { shared, emit }: Pick<IncomingContext, "shared" | "emit">,
  phase: AnnouncedPhase | "completed" | "waiting",
): void {
  shared.counters.set(DEST.phase, DEST_PHASES.indexOf(phase));
  if (phase !== "completed" && phase !== "waiting") emit({ kind: "phase", phase });
}

/** How often a wait for another thread looks whether it should stop. */
export const STOP_CHECK_MS = 200;

/**
 * @throws StoppedError when the operator asked to give up; PostcopyError THREAD_FAILED when another
 * thread failed, whose own error says why.
 */
export function checkStop(shared: DestShared): void {
  if (Atomics.load(shared.control, WORD.stop) === 1) throw new StoppedError();
  if (Atomics.load(shared.control, WORD.failed) === 1) {
    throw new PostcopyError("THREAD_FAILED", "Another thread of the migration failed");
  }
}

/** Waits for another thread's semaphore or event, and looks at `checkStop` meanwhile. */
export function awaitThread(shared: DestShared, wait: (timeoutMs: number) => boolean): void {
  while (!wait(STOP_CHECK_MS)) checkStop(shared);
}
