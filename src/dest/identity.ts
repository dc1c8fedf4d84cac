/**
 * Which guest is received (stream/identity.ts): kept when a source of ours tells it, and asked of every
 * source that wants to go on with it, so that the pages of two guests are never mixed. A guest that has no
 * page yet may still become another one: a VMM whose first source was the wrong one is not lost for it. Of
 * a source that tells none, a QEMU or an older postcopy, only the shape of its RAM blocks is known.
 */
import { FEATURE } from "../stream/hello.ts";
import {
  IDENTITY_BYTES,
  isLastPart,
  PONG_OTHER_GUEST,
  PONG_SAME_GUEST,
  SAME_FILES,
  ToldIdentity,
} from "../stream/identity.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import { StreamError } from "../util/errors.ts";
import type { IncomingContext } from "./context.ts";
import { WORD } from "./shared.ts";
import type { DestShared } from "./shared.ts";

/** Which guest it is, if that is known. */
export function readIdentity({ control }: Pick<DestShared, "control">): GuestIdentity | undefined {
  if (Atomics.load(control, WORD.identityKnown) === 0) return undefined;
  return Buffer.from(identityBytes(control)).toString("hex");
}

/** It is this guest, as far as a source says; undefined: nobody said. */
export function keepIdentity(
  { control }: Pick<DestShared, "control">,
  identity: GuestIdentity | undefined,
): void {
  if (identity !== undefined) identityBytes(control).set(Buffer.from(identity, "hex"));
  Atomics.store(control, WORD.identityKnown, identity === undefined ? 0 : 1);
}

function identityBytes(control: Int32Array<SharedArrayBuffer>): Uint8Array<SharedArrayBuffer> {
  return new Uint8Array(control.buffer, WORD.identity * 4, IDENTITY_BYTES);
}

/** Whether pages of the guest may have been placed. */
export function isBound({ control }: Pick<DestShared, "control">): boolean {
  return Atomics.load(control, WORD.identityBound) === 1;
}

/**
 * It is this guest for good: to be called by the incoming thread before the first page is placed in memory
 * that outlives the source, and at LISTEN. What outlives this process is told first, so that another one
 * finds no page of a guest that it does not know.
 */
export function bindIdentity({ guest, shared }: Pick<IncomingContext, "guest" | "shared">): void {
  if (isBound(shared)) return;
  guest.bindIdentity?.(readIdentity(shared));
  Atomics.store(shared.control, WORD.identityBound, 1);
}

/** A source was turned away: what it said is nothing to the next one, unless pages of it were placed. */
export function forgetIdentity(shared: Pick<DestShared, "control">): void {
  if (!isBound(shared)) keepIdentity(shared, undefined);
}

/**
 * The features are chosen, before any page is sent. A VMM may have pages of a source that was lost
 * before LISTEN, in this process or in one that was killed.
 * @throws StreamError OTHER_GUEST, which the source has then heard; UNEXPECTED.
 */
export function settleIdentity(
  { guest, shared, returnPath }: Pick<IncomingContext, "guest" | "shared" | "returnPath">,
  chosen: number,
  told: ToldIdentity,
): void {
  const tells = (chosen & FEATURE.identity) !== 0;
  const identity = tells ? told.identity : undefined;
  if (tells && identity === undefined) {
    throw new StreamError("UNEXPECTED", "The source chose to say which guest it has, and did not");
  }
  const known = readIdentity(shared) ?? guest.knownIdentity?.();
  if (guest.memory === "foreign" && known !== undefined && known !== identity) {
    returnPath.send({ kind: "pong", value: PONG_OTHER_GUEST });
    throw otherGuest(identity);
  }
  keepIdentity(shared, identity);
  // Pages of it are there, and nobody had said of which guest.
  if (isBound(shared)) guest.bindIdentity?.(identity);
}

/** A source that has connected to go on with a guest: whether it has that one. */
export class ReturningSource {
  readonly #told = new ToldIdentity();
  readonly #known: GuestIdentity | undefined;
  readonly #sourceWasOurs: boolean;

  /** `sourceWasOurs`: what the guest began to come from was this program. */
  constructor(shared: Pick<DestShared, "control">, sourceWasOurs: boolean) {
    this.#known = readIdentity(shared);
    this.#sourceWasOurs = sourceWasOurs;
  }

  /** The value of the PONG to a PING. */
  answer(value: number): number {
    this.#told.take(value);
    if (!isLastPart(value)) return value;
    if (this.#isOther) return PONG_OTHER_GUEST;
    return this.#known === undefined ? value : PONG_SAME_GUEST;
  }

  /** @throws StreamError OTHER_GUEST where it has another one, or does not say which. */
  requireSame(): void {
    if (this.#isOther) throw otherGuest(this.#told.identity);
  }

  get #isOther(): boolean {
    const { identity } = this.#told;
    if (this.#known !== undefined) return identity !== this.#known;
    // An older postcopy told nothing, and may have been replaced since; a QEMU has not.
    return identity !== undefined && !this.#sourceWasOurs;
  }
}

function otherGuest(told: GuestIdentity | undefined): StreamError {
  const what =
    told === undefined
      ? "The source does not say which guest it has, and the one before did"
      : "The source has another guest than the one before";
  return new StreamError("OTHER_GUEST", what, {
    hint: `go on with the same guest; ${SAME_FILES}`,
  });
}
