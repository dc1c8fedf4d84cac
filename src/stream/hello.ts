/**
 * How two of our own ends find each other without a byte that a QEMU would refuse: in the values of
 * PING and PONG, which QEMU echoes unread. The upper half of a value says what it is, the lower
 * half carries feature bits.
 *
 *     source: PING hello|features    a QEMU answers: PONG hello|features (the echo)
 *                                    our dest answers: PONG answer|its own features
 *     source: PING chosen|features   what is in force from here on; both have it
 *     dest:   PONG running           unasked, once the guest runs (only after `chosen`)
 */

const HELLO = 0x5043_0000;
const ANSWER = 0x5044_0000;
const CHOSEN = 0x5045_0000;
const MASK = 0xffff_0000;

/** PONG value: the guest runs at the destination. */
export const PONG_RUNNING = 0x5046_0001;

/** Feature bits of the lower half. */
export const FEATURE = {
  /** Requested pages travel on a channel of their own, in the format of QEMU's preempt channel. */
  urgentChannel: 1,
} as const;

/** All that this program can do. */
export const FEATURES_OURS = FEATURE.urgentChannel;

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

/** What a PING or PONG value means, or undefined for any other number. */
export function readHello(
  value: number,
): { kind: "hello" | "answer" | "chosen"; features: number } | undefined {
  const features = value & ~MASK;
  switch ((value & MASK) >>> 0) {
    case HELLO:
      return { kind: "hello", features };
    case ANSWER:
      return { kind: "answer", features };
    case CHOSEN:
      return { kind: "chosen", features };
    default:
      return undefined;
  }
}
