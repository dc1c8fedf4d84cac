/**
 * Connections beside the main one, between two of our own ends: the urgent channel, on which requested
 * pages come, and channels that share the push. Each begins with eight bytes, its head: a magic that says
 * which it is, and the token, a random u32 that only the two ends of the main channel know (hello.ts).
 * What follows has the format of QEMU's preempt channel: RAM records. A push channel ends with EOS.
 */

/** What a further connection is for; the value is its magic, "PCUR" or "PCPU". */
const MAGIC = { urgent: 0x5043_5552, push: 0x5043_5055 } as const;
export type FurtherChannel = keyof typeof MAGIC;

/** Bytes before the first record of a further connection. */
export const CHANNEL_HEAD_BYTES = 8;

/** The head of a further connection, which proves that it is the source's. */
export function channelHead(kind: FurtherChannel, token: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(CHANNEL_HEAD_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC[kind]);
  view.setUint32(4, token);
  return bytes;
}

/** The head that stands at `at`, or undefined if it is none. `token` is a u32. */
export function readChannelHead(
  view: DataView,
  at: number,
): { kind: FurtherChannel; token: number } | undefined {
  const magic = view.getUint32(at);
  const token = view.getUint32(at + 4);
  if (magic === MAGIC.urgent) return { kind: "urgent", token };
  return magic === MAGIC.push ? { kind: "push", token } : undefined;
}

/** Most channels that the push goes on, the main one among them. */
export const PUSH_CHANNELS_MAX = 8;

/** Four bits of the features (hello.ts) say how many push channels there are beside the main one. */
const COUNT_SHIFT = 12;
const COUNT_MASK = 0xf << COUNT_SHIFT;

/**
 * Push channels beside the main one: in an answer as many as the destination takes, in `chosen` as many
 * as the source has opened.
 */
export function furtherPushChannels(features: number): number {
  return Math.min((features & COUNT_MASK) >>> COUNT_SHIFT, PUSH_CHANNELS_MAX - 1);
}

/** The features with that number in them. */
export function withFurtherPushChannels(features: number, count: number): number {
  return (features & ~COUNT_MASK) | (count << COUNT_SHIFT);
}
