/** What is received, where and how; and what happens then. */
import type { Peer } from "../channel/address.ts";
import type { DestGuestData } from "../guests/registry.ts";
import { log } from "../util/log.ts";
import type { Output } from "./common.ts";
import type { Interrupts } from "./interrupts.ts";
import type { ArrivalOptions, OpenedArrival } from "./peers.ts";

/** What is received, where, and how. */
export interface DestJob {
  guest: DestGuestData;
  guestText: string;
  peer: Peer;
  /** Who may connect there. */
  security: ArrivalOptions;
  lockMemory: boolean;
  /** How long to wait for the source when the link breaks after the guest has started. */
  recoverTimeoutMs: number;
  /** When a link on which nothing arrives is broken, and a silent source given up. */
  linkTimeoutMs: number;
  /** Connections on which the push may come. */
  channels: number;
  /** Called as soon as every page is here, before anything else is made of that. */
  whole?: () => void;
  output: Output;
  interrupts: Interrupts;
}

/** Says where the source is awaited. */
export function sayListening({ text }: OpenedArrival, output: Output): void {
  log.info(`Waiting for a source on ${text}`);
  output.events.emit({ event: "listening", peer: text });
}

/** Moments of an arrival. */
export type DestMoment = "connected" | "precopy" | "device" | "postcopy" | "running" | "drained";
