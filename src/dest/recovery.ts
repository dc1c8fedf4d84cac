/**
 * Recovery at the destination (QEMU's `postcopy_pause_incoming` and what follows): the link broke
 * while pages were missing. The guest goes on with those that are here; whoever touches another one
 * waits. The source comes back over a new connection, which takes the place of the old one, hears
 * what is here, and sends the rest. It runs in the listen thread.
 */
import { closeDescriptor, replaceDescriptor } from "../../syscalls/descriptor.ts";
import { shutdownSocket } from "../../syscalls/socket.ts";
import type { Door } from "../channel/accept.ts";
import { ChannelError } from "../channel/channel.ts";
import type { Channel } from "../channel/channel.ts";
import { describePeer } from "../channel/describe-peer.ts";
import type { LimitedWarnings } from "../channel/limited-warnings.ts";
import { timeFor } from "../channel/time-limits.ts";
import { blockNamed, targetPages } from "../ram/block.ts";
import type { RamBlock } from "../ram/block.ts";
import { commandName, readCommand } from "../stream/command.ts";
import { writeReceivedBitmapEnd, writeReceivedBitmapStart } from "../stream/received-bitmap.ts";
import { isLastPart } from "../stream/identity.ts";
import { readSectionHeader } from "../stream/section.ts";
import { StreamWriter } from "../stream/writer.ts";
import { StreamError, errorChain } from "../util/errors.ts";
import { setPhase } from "./context.ts";
import type { DestEvent } from "./context.ts";
import { releaseRequests } from "./held-requests.ts";
import type { ReturnPath } from "./return-path.ts";
import { ReturningSource } from "./identity.ts";
import { HELD, WORD } from "./shared.ts";
import type { DestShared, PageState } from "./shared.ts";

/** PINGs that a source may send before it resumes; QEMU sends none. */
const HANDSHAKE_PINGS_MAX = 16;

/** What a recovery works with. */
export interface RecoveryContext {
  /** The main channel; the new connection is put under its descriptor. */
  channel: Channel;
  returnPath: ReturnPath;
  shared: DestShared;
  blocks: readonly RamBlock[];
  pages: PageState;
  /** What the guest began to come from is this program. */
  sourceIsOurs: boolean;
  /** Where the source is awaited. */
  door: Door;
  /** Of tries that failed: anybody may try, as often as he likes. */
  warnings: LimitedWarnings;
  /** How long the source is waited for, over all its tries. */
  timeoutMs: number;
  /** How long one that has come back may take to resume, beside the time for the bitmaps. */
  linkTimeoutMs: number;
  /** Takes the connections that were there when the one that resumed came, as its own may be. */
  keep: (descriptors: readonly number[]) => void;
  emit: (event: DestEvent) => void;
}

/**
 * Waits until the source has come back and resumes; its next bytes are then pages again. A source
 * that fails in the middle of the handshake may try as often as it likes.
 * @throws StoppedError when the operator gives up, `failure` when nobody came in time.
 */
export function recoverLink(context: RecoveryContext, failure: ChannelError): void {
  const { shared, channel, timeoutMs } = context;
  if (timeoutMs === 0) throw failure;
  const deadline = performance.now() + timeoutMs;
  Atomics.store(shared.control, WORD.requestsHeld, HELD.noLink);
  // What was chosen was chosen for the link that broke.
  Atomics.store(shared.control, WORD.pageRuns, 0);
  Atomics.store(shared.control, WORD.packedRuns, 0);
  const missing = Atomics.load(shared.control, WORD.missing);
  const message = `${failure.message} with ${missing} pages missing; waiting for the source to resume`;
  context.emit({ kind: "warning", message });
  setPhase(context, "paused");
  for (;;) {
    // A source that does not know yet that the link is of no more use would wait for it.
    shutdownSocket(channel.fd);
    const accepted = context.door.open(deadline - performance.now());
    if (accepted === undefined) throw failure;
    try {
      takeOver(context, accepted.main);
      channel.allow(timeFor(bitmapBytes(context), context.linkTimeoutMs), "resume");
      shakeHands(context);
      channel.allowAnyTime();
      context.emit({ kind: "returned", peer: describePeer(channel.fd) });
      setPhase(context, "postcopy");
      // One of them may be the preempt channel of a QEMU, which fails without.
      context.keep(accepted.others);
      return;
    } catch (error) {
      accepted.others.forEach(closeDescriptor);
      if (!(error instanceof ChannelError) && !(error instanceof StreamError)) throw error;
      context.warnings.say(`The recovery failed: ${errorChain(error)}`);
    }
  }
}

/** Bytes of the bitmaps that the source will ask for. */
function bitmapBytes({ pages }: RecoveryContext): number {
  return pages.received.reduce((sum, { bytes }) => sum + bytes.length, 0);
}

/** Every thread goes on with this connection of a source that recovers. */
function takeOver({ channel, shared }: RecoveryContext, main: number): void {
  // No other thread is in the middle of a message then.
  shared.returnPathLock.lock();
  try {
    replaceDescriptor(channel.fd, main);
  } finally {
    shared.returnPathLock.unlock();
  }
  channel.restart();
}

function shakeHands(context: RecoveryContext): void {
  const { channel, returnPath, shared } = context;
  const source = new ReturningSource(shared, context.sourceIsOurs);
  const asked = new Set<string>();
  let pings = 0;
  for (;;) {
    const section = readSectionHeader(channel.reader);
    if (section.kind !== "command") {
      throw new StreamError("UNKNOWN_SECTION", `A ${section.kind} section came in a recovery`);
    }
    const command = readCommand(channel.reader);
    switch (command.kind) {
      case "recvBitmap":
        // Anybody may connect here: nobody is to keep it busy for ever.
        if (asked.has(command.block)) {
          const what = `The source asks twice what is here of "${command.block}"`;
          throw new StreamError("UNEXPECTED", what);
        }
        asked.add(command.block);
        sendBitmap(context, command.block);
        break;
      case "ping":
        if (++pings > HANDSHAKE_PINGS_MAX) {
          const what = `The source sent more than ${HANDSHAKE_PINGS_MAX} PINGs in a recovery`;
          throw new StreamError("UNEXPECTED", what);
        }
        returnPath.send({ kind: "pong", value: source.answer(command.value) });
        // One with another guest has heard it.
        if (isLastPart(command.value)) source.requireSame();
        break;
      case "postcopyResume":
        source.requireSame();
        resume(context);
        return;
      default: {
        const name = commandName(command.kind);
        throw new StreamError("WRONG_STATE", `${name} came in a recovery`);
      }
    }
  }
}

/** Says which pages of a block are in place. */
function sendBitmap({ channel, blocks, pages, shared }: RecoveryContext, name: string): void {
  const block = blockNamed(blocks, name);
  const received = block === undefined ? undefined : pages.received[block.index];
  if (block === undefined || received === undefined) {
    throw new StreamError("UNKNOWN_BLOCK", `The source asks for the unknown block "${name}"`);
  }
  const [start, end] = [new StreamWriter(), new StreamWriter()];
  writeReceivedBitmapStart(start, name, targetPages(block));
  writeReceivedBitmapEnd(end);
  shared.returnPathLock.lock();
  try {
    channel.write(start.bytes);
    channel.write(received.bytes.slice());
    channel.write(end.bytes);
  } finally {
    shared.returnPathLock.unlock();
  }
}

/** Agrees, and asks again for every page that somebody waits for. */
function resume({ returnPath, shared, blocks, pages }: RecoveryContext): void {
  returnPath.send({ kind: "resumeAck" });
  releaseRequests(shared, blocks, pages, returnPath);
}
