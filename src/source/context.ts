/** What the source's loops work with, put together once by the thread that runs them. */
import type { Channel } from "../channel/channel.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import type { Compression } from "./compression-chooser.ts";
import type { SourceGuest } from "./guest.ts";
import type { RamWriter } from "./ram-writer.ts";
import type { SourceShared } from "./shared.ts";
import type { RoundResult, SwitchoverPolicy } from "./switchover.ts";

/** What the operator may set. */
export interface SourceSettings {
  policy: SwitchoverPolicy;
  /** Bytes a second in precopy; 0: no limit. */
  maxBandwidth: number;
  /** Bytes a second of the background push; requested pages are never held back. 0: no limit. */
  maxPostcopyBandwidth: number;
  /** Whether the background push compresses, where the destination is one of ours. */
  compression: Compression;
  /** The destination is a QEMU with postcopy-preempt on: requested pages go on a second channel. */
  preempt: boolean;
  /** Connections beside the main one that the push may go on, where the destination takes such. */
  pushChannels: number;
  /** Connections that the operator asked for by number, the main one among them; 0: by none. */
  channelsAsked: number;
  /** It is known to be one that reads nothing before that channel is there (up to 7.2). */
  preemptFirst?: boolean;
  /** How long the destination may take for what it has to answer at once, in milliseconds. */
  linkTimeoutMs: number;
  /** Longest stop that a completion in precopy may cost, in milliseconds. */
  downtimeLimitMs: number;
}

/** What happens while a migration runs, for people and for JSON output. */
export type SourceEvent =
  | { kind: "phase"; phase: "precopy" | "device" | "postcopy" }
  | { kind: "round"; result: RoundResult }
  | { kind: "switchover"; action: "postcopy" | "complete"; reason: string; dirtyPages: number }
  /** Whether requests have one of their own, and how many the push goes on. */
  | { kind: "channels"; urgentChannel: boolean; pushChannels: number }
  | { kind: "warning"; message: string };

/** Everything a loop of the source needs. */
export interface SourceContext {
  guest: SourceGuest;
  /** Which guest it is, for a destination that has a part of it (identity.ts). */
  identity: GuestIdentity;
  /** The main channel; this thread writes on it. */
  channel: Channel;
  shared: SourceShared;
  settings: SourceSettings;
  /** Target pages, counted over all blocks, that are pushed first and in this order. */
  replay: Uint32Array;
  /** Nothing is recorded of what a kept guest asks for first, and it will be. */
  watch: boolean;
  /** Makes a writer of RAM records over the guest's memory. */
  makeWriter: () => RamWriter;
  /** Opens a further connection to the peer, or undefined where only one is possible. */
  connectFurther: (() => number) | undefined;
  /** They lead through a bridge, one thread of which encrypts for all of them. */
  encrypted: boolean;
  /** Has a thread push on a connection whose head is sent; the crew closes it. */
  startPush: (fd: number) => void;
  /** A writing channel over a descriptor of this thread's peer. */
  openChannel: (fd: number) => Channel;
  /**
   * Makes durable that the guest may soon run at the destination, while it still runs here: so it
   * costs no downtime, and one that cannot be noted stays.
   */
  noteHandOver: () => void;
  /** Lets whoever a guest waits for, in whatever process, have the processor before this thread. */
  giveWay: () => void;
  emit: (event: SourceEvent) => void;
}
