/**
 * Streams that a destination must refuse: each is sent to a destination of its own, which says in
 * words that name what was wrong why it will not have the guest, and tells the source that it may
 * go on with it.
 */
import { expect } from "bun:test";

import { HandMadePeer } from "./hand-made-peer.ts";
import { advise, bytesOf, opening, openReturnPath, ramStart } from "./hand-made-stream.ts";
import type { Piece } from "./hand-made-stream.ts";
import { startDest } from "./migration.ts";

/** Header, configuration and the way back. */
export const START: readonly Piece[] = [opening(), openReturnPath];
/** Up to the discards. */
export const PRECOPY: readonly Piece[] = [...START, advise(), ramStart()];

/**
 * What a destination answered, but for what may still come behind a refusal: threads that know nothing
 * of it yet ask for a page, or answer a PING, a moment later.
 */
export function answersOf({ messages }: HandMadePeer): HandMadePeer["messages"] {
  return messages.filter(({ kind }) => kind !== "pageRequest" && kind !== "pong");
}

/** A stream, and how it is refused. */
export interface Refusal {
  stream: readonly Piece[];
  code: string;
  /** How the message begins. */
  says: string;
}

/** Sends a stream to a destination for `guest`, and expects it to be refused in so many words. */
export async function expectRefused(guest: string, { stream, code, says }: Refusal): Promise<void> {
  await using dest = await startDest({ guest });
  await using peer = await HandMadePeer.connect(dest.peer);
  peer.send(bytesOf(...stream));
  const { exitCode, error, report, stderr } = await dest.end();
  expect({ exitCode, error, stderr }).toMatchObject({ exitCode: 1, error: { code, exitCode: 1 } });
  expect(error?.message).toStartWith(says);
  expect(report).toMatchObject({ outcome: "failed", audit: null });
  expect(stderr).toContain(`postcopy: ${error?.message}`);
  await peer.otherEnd();
  // Where there is a way to say it, the source hears that the guest will not run here.
  if (stream.includes(openReturnPath)) {
    expect(answersOf(peer).at(-1)).toEqual({ kind: "shut", status: 1 });
  }
}
