/**
 * Which guest it is: told to a destination of ours once, and asked for again before anything is sent
 * over a link that goes on after one that broke (stream/identity.ts). Another guest's destination may
 * wait at the same address, with RAM blocks of the same shape.
 */
import { writeCommand } from "../stream/command.ts";
import { FEATURE } from "../stream/hello.ts";
import {
  identityPings,
  isLastPart,
  PONG_OTHER_GUEST,
  PONG_SAME_GUEST,
} from "../stream/identity.ts";
import { StreamWriter } from "../stream/writer.ts";
import { awaitAnswer } from "./answer.ts";
import type { SourceContext } from "./context.ts";
import { withMainLock } from "./ending.ts";
import { otherGuest } from "./refusal.ts";
import { IDENTITY_ANSWER, WORD } from "./shared.ts";
import type { SourceShared } from "./shared.ts";

/** Tells which guest it is, where that is among the features to be `chosen`. */
export function tellIdentity(context: SourceContext, chosen: number): void {
  if ((chosen & FEATURE.identity) === 0) return;
  sendIdentity(context);
  Atomics.store(context.shared.control, WORD.identityTold, 1);
}

/**
 * Before RESUME: the destination is the one that has this guest, as far as that can be known. A QEMU and
 * an older postcopy know nothing of it, which is right unless this very process has told it before.
 * @throws PostcopyError OTHER_GUEST.
 */
export function confirmIdentity(context: SourceContext): void {
  const { shared, settings } = context;
  const { control } = shared;
  sendIdentity(context);
  awaitAnswer(
    shared,
    (ms) => Atomics.wait(control, WORD.identityAnswer, IDENTITY_ANSWER.awaited, ms) !== "timed-out",
    settings.linkTimeoutMs,
    "answered no PING",
  );
  const answer = Atomics.load(control, WORD.identityAnswer);
  const wasTold = Atomics.load(control, WORD.identityTold) === 1;
  if (answer === IDENTITY_ANSWER.other || (answer === IDENTITY_ANSWER.unknown && wasTold)) {
    throw otherGuest();
  }
  Atomics.store(control, WORD.identityTold, answer === IDENTITY_ANSWER.same ? 1 : 0);
}

/** What the destination says of the guest's identity, by a PONG; any other value says nothing. */
export function takeIdentityPong({ control }: SourceShared, value: number): void {
  let answer: number;
  if (value === PONG_SAME_GUEST) answer = IDENTITY_ANSWER.same;
  else if (value === PONG_OTHER_GUEST) answer = IDENTITY_ANSWER.other;
  else if (isLastPart(value)) answer = IDENTITY_ANSWER.unknown;
  else return;
  Atomics.store(control, WORD.identityAnswer, answer);
  Atomics.notify(control, WORD.identityAnswer);
}

function sendIdentity(context: SourceContext): void {
  const writer = new StreamWriter();
  for (const value of identityPings(context.identity))
    writeCommand(writer, { kind: "ping", value });
  withMainLock(context, () => context.channel.write(writer.bytes));
}
