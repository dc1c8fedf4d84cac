/**
 * The listen thread (QEMU's `postcopy_ram_listen_thread`, patch 38 of the series): takes the stream
 * over at LISTEN and places pages, while the incoming thread goes on loading device state that may
 * itself need pages which are not here yet.
 */
import { Userfault } from "../../syscalls/userfaultfd.ts";
import { ChannelError } from "../channel/channel.ts";
import type { Channel } from "../channel/channel.ts";
import type { AddressMap } from "../ram/address-map.ts";
import { readCommand, commandName } from "../stream/command.ts";
import { FEATURE, answerValue, readHello } from "../stream/hello.ts";
import { readFooter, readSectionHeader } from "../stream/section.ts";
import { PostcopyError, StreamError } from "../util/errors.ts";
import { awaitThread, checkStop } from "./context.ts";
import { releaseForeignMemory } from "./foreign-memory.ts";
import { countPushed, openPushLoader } from "./pushed-records.ts";
import type { PushedRecords } from "./pushed-records.ts";
import type { RamLoader } from "./ram-loader.ts";
import { awaitPushed, endPushed, letPushed } from "./pushed-pages.ts";
import { guestRuns, refuseGuest } from "./refusal.ts";
import type { ReturnPath } from "./return-path.ts";
import { WORD } from "./shared.ts";
import type { DestShared } from "./shared.ts";

/** Pause between two looks at pages that are still under way on an urgent channel. */
const URGENT_PAUSE_MS = 1;

/** How long a source is waited for that need send nothing more: it tries every few seconds. */
const CONFIRM_TIMEOUT_MS = 15_000;

/** What a source may choose over a link that was recovered: there is no second channel. */
const FEATURES_OF_RECOVERED = FEATURE.pageRuns | FEATURE.packedRuns;

/** What the listen thread works with. */
export interface ListenContext extends PushedRecords {
  /** The main channel, at the place where the incoming thread left it. */
  channel: Channel;
  returnPath: ReturnPath;
  /** Where the guest's memory lies; with `foreign` in the address space of a VMM. */
  map: AddressMap;
  foreign: boolean;
  /** What of FEATURE it needs of its source. */
  needs: number;
  /** Section number of RAM, as its START said. */
  ramSectionId: number;
  /** There is no link yet: the source is to come back to a guest that another process took over. */
  resumes: boolean;
  /**
   * Waits for the source to come back over another link, for as long as the operator said if not for
   * `timeoutMs`, and throws `failure` if nobody does; undefined where it cannot.
   */
  recover: ((failure: ChannelError, timeoutMs?: number) => void) | undefined;
  /** How long the source may be silent where `bearsSilence` does not bear it. */
  linkTimeoutMs: number;
  /** Raised to end the threads that read further push channels. */
  pushStopFd: number;
  /** Ends the fault thread and waits until it has ended. */
  stopFaultThread: () => void;
}

/** Runs the thread from LISTEN to the end of the stream, and cleans up. */
export function runListen(context: ListenContext): void {
  const { shared } = context;
  shared.placingLocks.takeChannel(0);
  letPushed(shared);
  receivePages(context);
  awaitUrgentPages(context);
  // First, as the thread that loads the device state may wait for just the page that never came.
  const missing = Atomics.load(shared.control, WORD.missing);
  if (missing !== 0) {
    throw new PostcopyError("PAGES_MISSING", `The stream ended and ${missing} pages never came`);
  }
  // The device state may still be loading, and only the thread that loads it knows whether it will.
  awaitThread(shared, (ms) => shared.mainThreadLoadEvent.wait(ms));
  context.stopFaultThread();
  releaseMemory(context);
  shared.listenDone.post();
}

/** Loads all pages, over as many links as it takes. */
function receivePages(context: ListenContext): void {
  if (context.resumes) awaitSource(context);
  for (;;) {
    try {
      loadPages(context);
      awaitPushed(context.shared, context.linkTimeoutMs);
      return;
    } catch (error) {
      if (!(error instanceof ChannelError)) throw error;
      endPushed(context.shared, context.pushStopFd);
      // What is whole needs no source any more.
      if (Atomics.load(context.shared.control, WORD.missing) === 0) return;
      // A guest that does not run here yet is better off where it is.
      if (context.recover === undefined || refuseGuest(context.shared)) throw error;
      context.recover(error);
      context.sink.dropPart?.();
    }
  }
}

/** The source is to come back to a guest that another process took over. */
function awaitSource({ recover, shared }: ListenContext): void {
  const nobody = new ChannelError("PAUSED", "The guest was taken over before,");
  if (Atomics.load(shared.control, WORD.missing) > 0) return recover?.(nobody);
  // What is whole needs no source; but one that waits would be glad to know.
  try {
    recover?.(nobody, CONFIRM_TIMEOUT_MS);
  } catch (error) {
    if (error !== nobody) throw error;
  }
}

/** Loads RAM sections until EOF; the only command that may still come is PING. */
function loadPages(context: ListenContext): void {
  const { channel, shared } = context;
  channel.timeoutMs = context.linkTimeoutMs;
  channel.bearsSilence = () => bearsSilence(shared);
  const loader = openPushLoader(context);
  for (;;) {
    const section = readSectionHeader(channel.reader);
    switch (section.kind) {
      case "eof":
        return;
      case "command": {
        const command = readCommand(channel.reader);
        if (command.kind !== "ping") {
          const name = commandName(command.kind);
          throw new StreamError("WRONG_STATE", `${name} came while pages were being received`);
        }
        takePing(context, loader, command.value);
        break;
      }
      case "part":
      case "end":
        if (section.sectionId !== context.ramSectionId) {
          throw new StreamError("UNKNOWN_SECTION", `Section ${section.sectionId} is not RAM's`);
        }
        loadSection(context, loader);
        readFooter(channel.reader, section.sectionId);
        break;
      default:
        throw new StreamError(
          "UNKNOWN_SECTION",
          `A ${section.kind} section came while pages were being received`,
        );
    }
    checkStop(shared);
  }
}

/** A PING, which may be the hello of a source of ours that has come back over another link. */
function takePing({ returnPath, needs }: ListenContext, loader: RamLoader, value: number): void {
  const hello = readHello(value);
  if (hello?.kind === "chosen") {
    loader.runs = (hello.bits & FEATURE.pageRuns) !== 0;
    loader.packedRuns = loader.runs && (hello.bits & FEATURE.packedRuns) !== 0;
  }
  const answer = hello?.kind === "hello" ? answerValue(FEATURES_OF_RECOVERED | needs) : value;
  returnPath.send({ kind: "pong", value: answer });
}

/**
 * While the guest runs here and lacks pages the source may be as silent as it likes: it may be a
 * QEMU whose operator has stopped it. Before, the guest runs nowhere, and had better go back to a
 * source that answers no request; afterwards there is nothing more to wait for.
 */
function bearsSilence({ control }: DestShared): boolean {
  return guestRuns(control) && Atomics.load(control, WORD.missing) > 0;
}

function loadSection(context: ListenContext, loader: RamLoader): void {
  const { reader } = context.channel;
  for (;;) {
    const end = loader.load();
    countPushed(context, loader);
    if (end === "end of section") return;
    // Pages of this phase come on the main channel. QEMU 8.1.0 to 8.1.2 flush in every stream.
    if (end === "multifd flush") continue;
    if (end === "memory size") {
      throw new StreamError("UNEXPECTED", "The list of RAM blocks came again during postcopy");
    }
    reader.ensure(reader.available + 1);
  }
}

/**
 * The main channel has ended; requested pages may still be under way on an urgent one, which is
 * read by the fault thread. They have come when nothing is missing. A source that sends pages once more
 * says no end of it, so that pages which never come are waited for until the link timeout.
 */
function awaitUrgentPages(context: ListenContext): void {
  const { control } = context.shared;
  const deadline = performance.now() + context.linkTimeoutMs;
  while (Atomics.load(control, WORD.missing) > 0) {
    checkStop(context.shared);
    if (Atomics.load(control, WORD.urgentChosen) === 0) return;
    if (Atomics.load(control, WORD.urgentEnded) === 1) return;
    if (performance.now() > deadline) return;
    Atomics.wait(control, WORD.urgentEnded, 0, URGENT_PAUSE_MS);
  }
}

/** Gives the memory back to the kernel: from now on it is memory like any other. */
function releaseMemory({ shared, map, blocks, foreign }: ListenContext): void {
  const fd = Atomics.load(shared.control, WORD.userfaultFd);
  if (fd < 0) return;
  const userfault = new Userfault(fd);
  if (foreign) {
    releaseForeignMemory(userfault, map, blocks);
  } else {
    for (const { address, length } of map.pieces()) userfault.unregister(address, length);
  }
  userfault.close();
}
