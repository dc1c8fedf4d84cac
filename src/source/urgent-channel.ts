/**
 * The second connection to the destination, on which requested pages go: our own urgent channel, to
 * one of ours, or the preempt channel of a QEMU. Which of them, and when, is decided here.
 */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { FEATURE, FEATURES_OURS, chosenValue, helloValue, tokenValues } from "../stream/hello.ts";
import { furtherPushChannels, withFurtherPushChannels } from "../stream/further-channel.ts";
import { opensPreemptEarly } from "../stream/machine-type.ts";
import { PostcopyError } from "../util/errors.ts";
import { awaitAnswer } from "./answer.ts";
import type { SourceContext } from "./context.ts";
import { withMainLock } from "./ending.ts";
import { tellFewer } from "./fewer-channels.ts";
import { openFurtherChannel } from "./further-channel.ts";
import { chooseHostPages, hostPageChoice } from "./host-pages.ts";
import { tellIdentity } from "./identity.ts";
import { openPushChannels } from "./push-channels.ts";
import { WORD } from "./shared.ts";
import { sendCommand } from "./stream.ts";

/** Says who we are over a connection that has no opening: what a QEMU makes of it is an echo. */
export function sendHello(context: SourceContext): void {
  sendPing(context, helloValue(FEATURES_OURS));
}

/** In a recovery requests are being answered by now, and their answers go on this channel too. */
function sendPing(context: SourceContext, value: number): void {
  withMainLock(context, () => sendCommand(context, { kind: "ping", value }));
}

/** Waits until the destination has answered the hello, which it does as soon as it reads. */
function awaitHello({ shared, settings }: SourceContext): void {
  const answered = (ms: number): boolean => shared.peerKnown.wait(ms);
  awaitAnswer(shared, answered, settings.linkTimeoutMs, "answered no PING");
}

/**
 * Says what is in force from here on, and opens the urgent channel where the peer is one of ours
 * and takes one. Connecting comes first: where that fails requests are answered on the main channel.
 */
export function openUrgentChannel(context: SourceContext): void {
  awaitHello(context);
  const features = Atomics.load(context.shared.control, WORD.peerFeatures);
  if (features <= 0) {
    refuseQemu(context);
    tellFewer(context, 1, "a QEMU takes one");
    if (context.settings.preempt) openPreempt(context);
    tellChannels(context, context.settings.preempt, 0);
    return;
  }
  closePreempt(context);
  let further = 0;
  let chosen = hostPageChoice(context, features & FEATURES_OURS);
  const [token = 0] = crypto.getRandomValues(new Uint32Array(1));
  if ((chosen & FEATURE.urgentChannel) !== 0 && connectUrgent(context, token)) {
    for (const value of tokenValues(token)) sendPing(context, value);
    further = openPushChannels(context, token, furtherPushChannels(features));
    Atomics.store(context.shared.control, WORD.repeats, (chosen & FEATURE.repeats) === 0 ? 0 : 1);
  } else {
    if ((chosen & FEATURE.urgentChannel) === 0) {
      tellFewer(context, 1, "the destination takes one connection");
    } else if (context.connectFurther === undefined) {
      tellFewer(context, 1, "there is no second way to the destination");
    }
    // A page that is repeated comes sooner only on a channel of its own.
    chosen &= ~(FEATURE.urgentChannel | FEATURE.repeats);
  }
  tellChannels(context, (chosen & FEATURE.urgentChannel) !== 0, further);
  chooseHostPages(context, chosen);
  tellIdentity(context, chosen);
  sendPing(context, chosenValue(withFurtherPushChannels(chosen, further)));
  const { control } = context.shared;
  Atomics.store(control, WORD.pageRuns, (chosen & FEATURE.pageRuns) === 0 ? 0 : 1);
  Atomics.store(control, WORD.packedRuns, (chosen & FEATURE.packedRuns) === 0 ? 0 : 1);
  Atomics.store(control, WORD.devicesAhead, (chosen & FEATURE.devicesAhead) === 0 ? 0 : 1);
}

/** Which channels there are beside the main one. */
function tellChannels({ emit }: SourceContext, urgentChannel: boolean, further: number): void {
  emit({ kind: "channels", urgentChannel, pushChannels: 1 + further });
}

/** A QEMU of the guest's machine type: there is none, but nobody else may run it either. */
function refuseQemu({ guest: { receiver } }: SourceContext): void {
  if (receiver === undefined) return;
  throw new PostcopyError("NOT_FOR_QEMU", "The peer is no postcopy", { hint: receiver });
}

/**
 * A QEMU of 7.2 or earlier reads nothing at all until the preempt channel is there, so for machines
 * of its time, and for such a QEMU whatever the guest's machine, it is opened before anything is
 * waited for.
 */
export function openPreemptEarly(context: SourceContext): void {
  const { preempt, preemptFirst = false } = context.settings;
  if (!preempt || !(preemptFirst || opensPreemptEarly(context.guest.machineType))) return;
  openPreempt(context);
}

/**
 * The preempt channel of a QEMU destination, which carries RAM records from its first byte on. The
 * QEMU that has the capability on waits for it for ever, so that it cannot be had is a failure.
 */
export function openPreempt(context: SourceContext): void {
  const { shared, connectFurther: connect } = context;
  if (Atomics.load(shared.control, WORD.urgentFd) >= 0) return;
  if (connect === undefined) {
    throw new PostcopyError("NO_PREEMPT", "The preempt channel needs a second connection", {
      hint: "use tcp: or unix:, or switch postcopy-preempt off at the destination",
    });
  }
  Atomics.store(shared.control, WORD.urgentFd, connect());
}

/** One of ours answered: it takes a channel with a token, and not the one of a QEMU. */
function closePreempt({ shared }: SourceContext): void {
  const fd = Atomics.exchange(shared.control, WORD.urgentFd, -1);
  if (fd >= 0) closeDescriptor(fd);
}

/** Opens the urgent channel; false, with a warning, where it cannot be had. */
function connectUrgent(context: SourceContext, token: number): boolean {
  const without = "There is no urgent channel, requests wait for bulk data";
  const fd = openFurtherChannel(context, "urgent", token, without);
  if (fd === undefined) return false;
  Atomics.store(context.shared.control, WORD.urgentFd, fd);
  return true;
}
