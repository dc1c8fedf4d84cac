/**
 * How two of our own ends find each other without a byte that a QEMU would refuse: in the values of
 * PING and PONG, which QEMU echoes unread. The upper half of a value says what it is, the lower
 * half carries feature bits or a part of the token.
 *
 *     source: PING hello|features    a QEMU answers: PONG hello|features (the echo)
 *                                    our dest answers: PONG answer|its own features
 *     source: PING token high|bits   with an urgent channel only: the secret by which it is known
 *             PING token low|bits
 *             PING part of the guest's identity, eight times (identity.ts)
 *     source: PING chosen|features   what is in force from here on; both have it
 *     source: PING ahead|pass        behind what was sent ahead of the switchover: the dest answers
 *                                    as to any PING, once it has done that
 *     dest:   PONG running           unasked, once the guest runs (only after `chosen`)
 *
 * The urgent channel, and further ones for the push, are connections to the same address
 * (further-channel.ts), where anybody may connect. An urgent channel ends with EOS, but where pages are
 * sent once more (FEATURE.repeats): it then ends with the link.
 *
 * The upper four of the sixteen bits say how many further channels the push has.
 */

import { TARGET_PAGE_SIZE } from "./constants.ts";

const HELLO = 0x5043_0000;
const ANSWER = 0x5044_0000;
const CHOSEN = 0x5045_0000;
const TOKEN_HIGH = 0x5047_0000;
const TOKEN_LOW = 0x5048_0000;
const MASK = 0xffff_0000;

/** PONG value: the guest runs at the destination. */
export const PONG_RUNNING = 0x5046_0001;

/**
 * PING value behind the last page of the recorded working set: its PONG, which a QEMU gives too,
 * says that the destination has read everything before it.
 */
export const PING_WORKING_SET = 0x5049_0001;

const AHEAD = 0x504a_0000;
/**
 * PING value behind what was sent ahead of the switchover, by passes counted from 1 (u16): our
 * destination answers when it has done that.
 */
export function aheadPing(pass: number): number {
  return AHEAD | pass;
}

export function isAheadPing(value: number): boolean {
  return (value & MASK) >>> 0 === AHEAD;
}

/** The pass that a PONG answers, or undefined for any other. */
export function aheadPass(value: number): number | undefined {
  return isAheadPing(value) ? value & ~MASK : undefined;
}

/**
 * Page requests by which our destination says to a QEMU, once it has every page of a guest and right
 * before SHUT, that it has kept the guest and runs it nowhere. A source ignores requests for what it
 * has sent, and counts them: `postcopy-requests` at its monitor is 0 of a QEMU that runs an idle
 * guest as well, so only such a number shows that the guest may go on at the source. A prime that is
 * far above what an idle guest asks for.
 */
export const KEPT_REQUESTS = 2003;

/** Feature bits of the lower half. */
export const FEATURE = {
  /** Requested pages travel on a channel of their own, in the format of QEMU's preempt channel. */
  urgentChannel: 1,
  /** The destination says when the guest runs (PONG_RUNNING). */
  running: 2,
  /** RAM sections may hold page runs (page-run.ts), from `chosen` on. */
  pageRuns: 4,
  /** Such runs may be compressed with zstd. */
  packedRuns: 8,
  /** The destination takes a host page twice, also a huge one: what comes later is dropped. */
  repeats: 16,
  /** Device state may come ahead of the switchover, and what has changed of it later. */
  devicesAhead: 32,
  /**
   * The host pages of a guest that lies in files, which has none of its own, are to be of 4 KiB (a
   * destination says either this or the next), ...
   */
  smallPages: 64,
  /** ... or of 2 MiB in each RAM block that consists of such. */
  largePages: 128,
  /** The source has told which guest it sends, by which it is known when it comes back (identity.ts). */
  identity: 256,
} as const;

/** Bytes of the pages that FEATURE.largePages is about. */
export const LARGE_PAGE_BYTES = 2 * 1024 * 1024;

/** Bytes of a host page as `features` say it; undefined where they say nothing. */
export function hostPageBytes(features: number): number | undefined {
  if ((features & FEATURE.largePages) !== 0) return LARGE_PAGE_BYTES;
  return (features & FEATURE.smallPages) === 0 ? undefined : TARGET_PAGE_SIZE;
}

/** Bytes of a host page of a RAM block where they are to be `wanted`, if it consists of such. */
export function hostPageBytesOf({ length }: { length: number }, wanted: number): number {
  return length % wanted === 0 ? wanted : TARGET_PAGE_SIZE;
}

/** All that this program can do; what a destination needs it says only where it does. */
export const FEATURES_OURS =
  FEATURE.urgentChannel |
  FEATURE.running |
  FEATURE.pageRuns |
  FEATURE.packedRuns |
  FEATURE.repeats |
  FEATURE.devicesAhead |
  FEATURE.smallPages |
  FEATURE.largePages |
  FEATURE.identity;

/** The value of the source's first PING. */
export function helloValue(features: number): number {
  return HELLO | features;
}

/** The destination's answer to `helloValue`. */
export function answerValue(features: number): number {
  return ANSWER | features;
}

/** The value of the PING that puts features in force. */
export function chosenValue(features: number): number {
  return CHOSEN | features;
}

/** The values of the two PINGs that carry a token (u32) to the destination. */
export function tokenValues(token: number): [number, number] {
  return [TOKEN_HIGH | (token >>> 16), TOKEN_LOW | (token & 0xffff)];
}

/** What a PING or PONG value means; `bits` is its lower half. */
export interface Hello {
  kind: "hello" | "answer" | "chosen" | "token high" | "token low";
  bits: number;
}

const KINDS: ReadonlyMap<number, Hello["kind"]> = new Map([
  [HELLO, "hello"],
  [ANSWER, "answer"],
  [CHOSEN, "chosen"],
  [TOKEN_HIGH, "token high"],
  [TOKEN_LOW, "token low"],
]);

/** What a PING or PONG value means, or undefined for any other number. */
export function readHello(value: number): Hello | undefined {
  const kind = KINDS.get((value & MASK) >>> 0);
  return kind === undefined ? undefined : { kind, bits: value & ~MASK };
}
