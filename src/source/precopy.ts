/**
 * Precopy: rounds over the dirty pages while the guest goes on writing, until the policy says that
 * it is time to switch over.
 */
import type { DirtyTracker } from "../ram/dirty-tracking.ts";
import { targetPages } from "../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { SOURCE } from "../report/counters.ts";
import { KIND } from "../report/moved-pages.ts";
import { Bandwidth } from "./bandwidth.ts";
import type { SourceContext } from "./context.ts";
import { CopyChooser } from "./copy-chooser.ts";
import type { RamWriter } from "./ram-writer.ts";
import { checkPeer } from "./refusal.ts";
import { checkStop, stopAsked, WORD } from "./shared.ts";
import { RAM_SECTION_ID } from "./stream.ts";
import { decideAfterRound } from "./switchover.ts";
import type { Decision, RoundResult } from "./switchover.ts";

/** Target pages written with one writev: 1 MiB of data. */
const PAGES_PER_CHUNK = 256;

/** How often a guest that writes nothing is looked at. */
const IDLE_ROUND_MS = 50;

/** Why and how precopy ended. */
export type PrecopyEnd = Exclude<Decision, { action: "another round" }>;

/** Marks every page dirty: what the first round sends. */
export function markAllDirty(context: SourceContext): void {
  for (const bitmap of context.shared.dirty) bitmap.setAll();
}

/** Dirty pages of all blocks. */
export function countDirty(context: SourceContext): number {
  return context.shared.dirty.reduce((sum, bitmap) => sum + bitmap.count(), 0);
}

/** Runs rounds until the policy, the operator or the dirty set ends them. */
export function runPrecopy(context: SourceContext, tracker: DirtyTracker): PrecopyEnd {
  const { settings, shared } = context;
  const writer = makeWriter(context);
  const bandwidth = new Bandwidth(settings.maxBandwidth);
  const began = performance.now();
  let previous: RoundResult | undefined;
  for (let round = 1; ; round++) {
    shared.counters.set(SOURCE.round, round);
    const result = runRound(context, writer, bandwidth, round, began);
    tracker.collect(shared.dirty);
    result.dirtyPagesAfter = countDirty(context);
    shared.counters.set(SOURCE.dirtyPages, result.dirtyPagesAfter);
    const seconds = result.durationMs / 1000;
    shared.counters.set(SOURCE.dirtyRate, result.dirtyPagesAfter / Math.max(seconds, 1e-6));
    context.emit({ kind: "round", result });
    checkStop(shared);
    checkPeer(shared);
    if (switchoverAsked(context)) {
      return { action: "postcopy", reason: "the operator asked for it" };
    }
    const decision = decideAfterRound(
      settings.policy,
      result,
      previous,
      performance.now() - began,
      settings.downtimeLimitMs,
      context.guest.deviceSections !== undefined,
    );
    if (decision.action !== "another round") return decision;
    if (result.dirtyPagesAfter === 0) awaitWrites(context, tracker, began);
    previous = result;
  }
}

/** Waits a moment for a guest that writes nothing: a round without pages is none. */
function awaitWrites(context: SourceContext, tracker: DirtyTracker, began: number): void {
  const idle = new Int32Array(new SharedArrayBuffer(4));
  while (countDirty(context) === 0 && !mustEnd(context, began)) {
    Atomics.wait(idle, 0, 0, IDLE_ROUND_MS);
    checkStop(context.shared);
    checkPeer(context.shared);
    tracker.collect(context.shared.dirty);
  }
}

/** Sends all that is dirty while the guest stands still: the end of a completion in precopy. */
export function sendLastPages(context: SourceContext): void {
  runRound(context, makeWriter(context), new Bandwidth(0), 0, Infinity);
}

function makeWriter(context: SourceContext): RamWriter {
  const writer = context.makeWriter();
  writer.kind = KIND.precopy;
  return writer;
}

function switchoverAsked(context: SourceContext): boolean {
  return Atomics.load(context.shared.control, WORD.switchoverNow) === 1;
}

/** Whether a round must end early: on request, or because `--switchover after=` has run out. */
function mustEnd(context: SourceContext, began: number): boolean {
  if (began === Infinity) return false;
  if (switchoverAsked(context)) return true;
  const { policy } = context.settings;
  return policy.kind === "after" && performance.now() - began >= policy.ms;
}

/** Sends what is dirty now, once; what the guest writes meanwhile is found afterwards. */
function runRound(
  context: SourceContext,
  writer: RamWriter,
  bandwidth: Bandwidth,
  round: number,
  began: number,
): RoundResult {
  const { counters } = context.shared;
  const start = performance.now();
  const result = { round, pagesNormal: 0, pagesZero: 0, bytes: 0, dirtyPagesAfter: 0 };
  let left = countDirty(context);
  const chooser = new CopyChooser();
  const hurry = (): boolean => stopAsked(context.shared) || mustEnd(context, began);
  for (const block of context.guest.blocks) {
    const dirty = context.shared.dirty[block.index];
    if (dirty === undefined) continue;
    const pages = targetPages(block);
    for (let page = dirty.nextSet(0, pages); page >= 0;) {
      chooser.before(writer);
      writer.begin(RAM_SECTION_ID);
      for (let n = 0; n < PAGES_PER_CHUNK && page >= 0; n++) {
        dirty.claim(page);
        writer.page(block, page * TARGET_PAGE_SIZE);
        page = page + 1 < pages ? dirty.nextSet(page + 1, pages) : -1;
      }
      const bytes = writeChunk(context, writer);
      chooser.after(writer, writer.normal);
      counters.add(SOURCE.bytesPrecopy, bytes);
      counters.add(SOURCE.pagesNormalPrecopy, writer.normal);
      counters.add(SOURCE.pagesZeroPrecopy, writer.zero);
      result.bytes += bytes;
      result.pagesNormal += writer.normal;
      result.pagesZero += writer.zero;
      left -= writer.normal + writer.zero;
      counters.set(SOURCE.dirtyPages, left);
      bandwidth.spend(bytes, hurry);
      checkStop(context.shared);
      checkPeer(context.shared);
      if (mustEnd(context, began)) return { ...result, durationMs: performance.now() - start };
    }
  }
  return { ...result, durationMs: performance.now() - start };
}

function writeChunk(context: SourceContext, writer: RamWriter): number {
  const list = writer.finish();
  const bytes = list.remaining;
  context.channel.writeAll(list);
  return bytes;
}
