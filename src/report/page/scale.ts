/** From values to places on an axis, and the round values that are marked there. */
import type { PlotUnit } from "./units.ts";
import { formatTick, isBinary, leastStep } from "./units.ts";

/** A mark on an axis. */
export interface Tick {
  /** From 0 (the axis' begin) to 1. */
  place: number;
  label: string;
}

export interface Scale {
  ticks: readonly Tick[];
  /** Where a value lies, from 0 to 1; what lies outside is moved to the nearer end. */
  place(value: number): number;
}

/** About as many marks as an axis has. */
const TICKS = 5;

function clamped(place: number): number {
  return Math.min(1, Math.max(0, Number.isNaN(place) ? 0 : place));
}

/** The least of 1, 2, 5 times a power of ten (or of 1, 2, 4, 8, …) that is not below a step. */
function roundStep(step: number, unit: PlotUnit): number {
  const value = Math.max(step, leastStep(unit));
  if (isBinary(unit)) return 2 ** Math.ceil(Math.log2(value));
  const power = 10 ** Math.floor(Math.log10(value));
  const factor = [1, 2, 5].find((one) => one * power >= value * (1 - 1e-9)) ?? 10;
  return factor * power;
}

/** From 0, or from `least` if that is given, to a round value at or above `greatest`. */
export function linearScale(greatest: number, unit: PlotUnit, least = 0): Scale {
  const span = greatest - least > 0 ? greatest - least : 1;
  const step = roundStep(span / TICKS, unit);
  const first = Math.floor(least / step);
  const last = Math.max(first + 1, Math.ceil((least + span) / step - 1e-9));
  const place = (value: number): number => clamped((value / step - first) / (last - first));
  const ticks = Array.from({ length: last - first + 1 }, (_, index) => {
    // Not `first * step + …`: 3 × 0.1 is not 0.3.
    const value = Number(((first + index) * step).toPrecision(12));
    return { place: place(value), label: formatTick(value, unit) };
  });
  return { ticks, place };
}

/** From 0 to what ends where it ends, as time and memory do: no empty part behind it. */
export function exactScale(greatest: number, unit: PlotUnit): Scale {
  const end = greatest > 0 ? greatest : 1;
  const step = roundStep(end / TICKS, unit);
  const place = (value: number): number => clamped(value / end);
  const ticks: Tick[] = [];
  for (let index = 0; index * step <= end * (1 + 1e-9); index++) {
    const value = Number((index * step).toPrecision(12));
    ticks.push({ place: place(value), label: formatTick(value, unit) });
  }
  return { ticks, place };
}

/** Powers of ten, or of four for what is counted in powers of two, around [least, greatest]. */
export function logScale(least: number, greatest: number, unit: PlotUnit): Scale {
  const base = isBinary(unit) ? 4 : 10;
  const log = (value: number): number => Math.log(value) / Math.log(base);
  const low = least > 0 ? Math.max(least, leastStep(unit)) : 1;
  const high = Math.max(low, greatest);
  const first = Math.floor(log(low) + 1e-9);
  const last = Math.max(first + 1, Math.ceil(log(high) - 1e-9));
  const place = (value: number): number =>
    value > 0 ? clamped((log(value) - first) / (last - first)) : 0;
  const every = Math.ceil((last - first) / (TICKS + 2));
  const ticks: Tick[] = [];
  for (let power = first; power <= last; power += every) {
    const value = Number((base ** power).toPrecision(12));
    ticks.push({ place: place(value), label: formatTick(value, unit) });
  }
  return { ticks, place };
}
