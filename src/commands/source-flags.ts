/** Flags that say how a guest is sent: of `source`, and of `dest` for its onward journey. */
import type { Compression } from "../source/compression-chooser.ts";
import type { SourceSettings } from "../source/context.ts";
import type { SwitchoverPolicy } from "../source/switchover.ts";
import { PUSH_CHANNELS_MAX } from "../stream/further-channel.ts";
import { channelsForProcessors } from "../util/processors.ts";
import { UsageError } from "../util/errors.ts";
import { parseDuration } from "../util/duration.ts";
import { durationSchema, fromText, rateSchema } from "../util/schemas.ts";
import { quoted } from "../util/units.ts";
import { SECURITY_FLAGS } from "./security.ts";
import type { SecurityOptions } from "./security.ts";
import { defaultFlag, optionalFlag, switchFlag } from "./strict.ts";

/** Most precopy rounds that one can ask for. */
const ROUNDS_MAX = 1000;

function parsePolicy(text: string): SwitchoverPolicy {
  if (text === "auto" || text === "now") return { kind: text };
  const [key, value = ""] = text.split("=");
  if (key === "rounds" && /^[1-9]\d{0,3}$/.test(value) && Number(value) <= ROUNDS_MAX) {
    return { kind: "rounds", rounds: Number(value) };
  }
  if (key === "after") return { kind: "after", ms: parseDuration(value) };
  throw new UsageError("BAD_POLICY", `${quoted(text)} is not a switchover policy`, {
    hint: `write auto, now, rounds=N (1 to ${ROUNDS_MAX}) or after=DURATION, e.g. after=5s`,
  });
}

function parseCompression(text: string): Compression {
  if (text === "auto" || text === "off" || text === "zstd") return text;
  throw new UsageError("BAD_COMPRESSION", `${quoted(text)} is no way to compress`, {
    hint: "write auto, off or zstd",
  });
}

/** How many channels the push has, and whether the operator named that number. */
export interface ChannelCount {
  count: number;
  named: boolean;
}

function parseChannels(text: string): ChannelCount {
  if (text === "auto") return { count: channelsForProcessors(), named: false };
  if (/^\d$/.test(text) && Number(text) >= 1 && Number(text) <= PUSH_CHANNELS_MAX) {
    return { count: Number(text), named: true };
  }
  throw new UsageError("BAD_CHANNELS", `${quoted(text)} is no number of connections`, {
    hint: `write auto, or one from 1 to ${PUSH_CHANNELS_MAX}`,
  });
}

/** The kernel counts some of it in whole seconds, and an hour without a link is none. */
const LINK_TIMEOUT_MIN_MS = 1000;
const LINK_TIMEOUT_MAX_MS = 3_600_000;

function parseLinkTimeout(text: string): number {
  const ms = parseDuration(text);
  if (ms >= LINK_TIMEOUT_MIN_MS && ms <= LINK_TIMEOUT_MAX_MS) return ms;
  throw new UsageError("BAD_DURATION", `${quoted(text)} is no time for a link to be silent`, {
    hint: "write one from 1s to 1h; 30s is the default",
  });
}

/** How long a source tries to recover unless told otherwise. */
const RECOVER_TIMEOUT = "5m";

export const SOURCE_FLAGS = {
  switchover: defaultFlag(fromText(parsePolicy), {
    valueHint: "WHEN",
    description: "Switch over: auto, now, rounds=N or after=DURATION",
    default: "auto",
  }),
  "max-bandwidth": optionalFlag(rateSchema, {
    valueHint: "RATE",
    description: "Limit of precopy, e.g. 500MiB/s (default: none)",
  }),
  "max-postcopy-bandwidth": optionalFlag(rateSchema, {
    valueHint: "RATE",
    description: "Limit of the push in postcopy; requested pages are never held back",
  }),
  compress: defaultFlag(fromText(parseCompression), {
    valueHint: "HOW",
    description: "Compress what is pushed: auto (on a link slower than that), off, zstd (always)",
    default: "auto",
  }),
  channels: defaultFlag(fromText(parseChannels), {
    valueHint: "N",
    description:
      "Connections that the push goes on between two of ours: 1 to 8, or as processors allow; no more than the other end's",
    default: "auto",
  }),
  preempt: switchFlag("The QEMU there has postcopy-preempt on: send requested pages apart"),
  "downtime-limit": defaultFlag(durationSchema, {
    valueHint: "DURATION",
    description: "Longest stop for which auto may complete in precopy",
    default: "300ms",
  }),
  "connect-timeout": defaultFlag(durationSchema, {
    valueHint: "DURATION",
    description: "How long to wait for a peer that is not there yet",
    default: "10s",
  }),
  "recover-timeout": defaultFlag(durationSchema, {
    valueHint: "DURATION",
    description: "How long to try again when the link breaks after the switch (0s: not at all)",
    default: RECOVER_TIMEOUT,
  }),
  "link-timeout": defaultFlag(fromText(parseLinkTimeout), {
    valueHint: "DURATION",
    description:
      "When a link on which nothing arrives is broken, or a peer given up (not for qemu:)",
    default: "30s",
  }),
  ...SECURITY_FLAGS,
} as const;

/** Values of SOURCE_FLAGS. */
export interface SourceOptions extends SecurityOptions {
  switchover: SwitchoverPolicy;
  maxBandwidth: number | undefined;
  maxPostcopyBandwidth: number | undefined;
  compress: Compression;
  channels: ChannelCount;
  preempt: boolean;
  downtimeLimit: number;
  connectTimeout: number;
  recoverTimeout: number;
  linkTimeout: number;
}

/** The same in milliseconds. */
export const RECOVER_TIMEOUT_MS = parseDuration(RECOVER_TIMEOUT);

export function sourceSettings(options: SourceOptions): Omit<SourceSettings, "preempt"> {
  return {
    policy: options.switchover,
    maxBandwidth: options.maxBandwidth ?? 0,
    maxPostcopyBandwidth: options.maxPostcopyBandwidth ?? 0,
    compression: options.compress,
    pushChannels: options.channels.count - 1,
    channelsAsked: options.channels.named ? options.channels.count : 0,
    downtimeLimitMs: options.downtimeLimit,
    linkTimeoutMs: options.linkTimeout,
  };
}
