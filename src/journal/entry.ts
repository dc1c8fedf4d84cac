/**
 * What the journal says of one send. An entry is written before the guest is stopped, when it may be
 * about to leave, and is removed when nothing follows from it any more: the guest stayed, or all of
 * it arrived and may be sent again.
 */
import * as z from "zod";

const ENTRY_VERSION = 1;

const processSchema = z.strictObject({
  pid: z.int().positive(),
  startTicks: z.int().nonnegative(),
  boot: z.string().min(1),
});

/** Whose guest it is. */
const guestSchema = z.discriminatedUnion("kind", [
  /**
   * Kept in files: a snapshot's directory, or a stream's file, by its real path, and by what tells it
   * from another that is kept in the same place later.
   */
  z.strictObject({ kind: z.literal("stored"), path: z.string().min(1), content: z.string() }),
  /** In a running QEMU: known by its process, or where that cannot be seen by its monitor's socket. */
  z.strictObject({
    kind: z.literal("qemu"),
    process: processSchema.nullable(),
    socket: z.string().min(1),
    uuid: z.string(),
  }),
  /** In the process that sends it. */
  z.strictObject({ kind: z.literal("stress") }),
]);
export type JournalGuest = z.infer<typeof guestSchema>;

/** Where it goes. */
const peerSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("address"), text: z.string().min(1) }),
  /** Into a QEMU that the sender started (`--run`) by a shell, with its private monitor. */
  z.strictObject({
    kind: z.literal("run"),
    command: z.string(),
    process: processSchema.nullable(),
    monitor: z.string().min(1),
  }),
]);
export type JournalPeer = z.infer<typeof peerSchema>;

export const entrySchema = z.strictObject({
  version: z.literal(ENTRY_VERSION),
  /** `committing`: it may run at the peer from now on. `moved`: all of it is there. */
  state: z.enum(["committing", "moved"]),
  guest: guestSchema,
  peer: peerSchema,
  /** It goes on here afterwards, if the peer only keeps it (`--keep`). */
  keep: z.boolean(),
  /** When it was written first. */
  since: z.iso.datetime(),
  sender: processSchema,
});
export type JournalEntry = z.infer<typeof entrySchema>;

/** A new entry. */
export function newEntry(fields: Omit<JournalEntry, "version" | "state" | "since">): JournalEntry {
  const since = new Date().toISOString();
  return { version: ENTRY_VERSION, state: "committing", since, ...fields };
}

/** What of a peer is the same for all sends to it. */
export type PeerKey = { kind: "address"; text: string } | { kind: "run"; command: string };

export function samePeer(one: PeerKey, other: PeerKey): boolean {
  if (one.kind === "address") return other.kind === "address" && one.text === other.text;
  return other.kind === "run" && one.command === other.command;
}
