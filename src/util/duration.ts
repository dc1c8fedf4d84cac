/**
 * Durations as people write them. Inside the program a duration is a number whose name says its
 * unit: milliseconds for deadlines and phases, nanoseconds for the latency of one fault.
 */
import { UsageError } from "./errors.ts";
import { quoted, threeDigits } from "./units.ts";

/** Longest text the parser looks at. */
const DURATION_TEXT_MAX = 64;
/** The longest duration, so that a deadline stays a safe number of nanoseconds: 100 days. */
const DURATION_MS_MAX = 100 * 24 * 3_600_000;

const DURATION_HINT = "write a duration as 300ms, 1.5s, 2m or 1h30m";

/** Largest unit first: the order in which the parts of "1h30m" must come. */
const DURATION_UNITS = ["h", "m", "s", "ms", "us", "µs", "ns"] as const;
type DurationUnit = (typeof DURATION_UNITS)[number];
const MS_OF: Readonly<Record<DurationUnit, number>> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 1e-3,
  µs: 1e-3,
  ns: 1e-6,
};

function badDuration(text: string, why: string): UsageError {
  return new UsageError("BAD_DURATION", `${quoted(text)} ${why}`, { hint: DURATION_HINT });
}

/**
 * Milliseconds from "300ms", "5s", "2m", "1h30m", "250us". A number without a unit is refused, as
 * QEMU itself takes some of its times in ms, others in s; only 0 needs no unit.
 */
export function parseDuration(text: string): number {
  const trimmed = text.trim();
  if (trimmed === "0") return 0;
  if (trimmed.length > DURATION_TEXT_MAX) throw badDuration(text, "is not a duration");
  if (/^\d+(\.\d+)?$/.test(trimmed)) {
    throw badDuration(text, `has no unit: ${trimmed}ms, ${trimmed}s or ${trimmed}m?`);
  }
  if (!/^(\d+(\.\d+)? ?[a-zµ]+ ?)+$/.test(trimmed)) throw badDuration(text, "is not a duration");
  let total = 0;
  let rank = -1;
  for (const [, digits, unit] of trimmed.matchAll(/(\d+(?:\.\d+)?) ?([a-zµ]+)/g)) {
    const unitRank = DURATION_UNITS.indexOf(unit as DurationUnit);
    if (unitRank < 0) throw badDuration(text, `has an unknown unit, ${quoted(unit ?? "")}`);
    if (unitRank <= rank) throw badDuration(text, "does not go from larger to smaller units");
    rank = unitRank;
    total += Number(digits) * MS_OF[unit as DurationUnit];
  }
  if (total > DURATION_MS_MAX) throw badDuration(text, "is longer than 100 days");
  return total;
}

/** Milliseconds for people, from ns to hours: "850 ns", "12.3 µs", "1.5 s", "2m05s", "1h02m". */
export function formatDuration(ms: number): string {
  if (ms === 0) return "0 s";
  if (ms < 1e-3) return `${Math.max(1, Math.round(ms * 1e6))} ns`;
  if (ms < 0.9995) return `${threeDigits(ms * 1e3)} µs`;
  if (ms < 999.5) return `${threeDigits(ms)} ms`;
  if (ms < 59_950) return `${threeDigits(ms / 1000)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m${twoDigits(seconds % 60)}s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)}h${twoDigits(minutes % 60)}m`;
}

function twoDigits(value: number): string {
  return String(value).padStart(2, "0");
}

/** The same from nanoseconds. */
export function formatNanoseconds(ns: number): string {
  return formatDuration(ns / 1e6);
}
