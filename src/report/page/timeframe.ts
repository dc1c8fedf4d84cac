/** What all plots of how memory moved have in common: their time axis, and the kinds in colours. */
import { KINDS } from "../moved-pages.ts";
import type { KindName } from "../moved-pages.ts";
import type { Movement, Sample } from "../movement.ts";
import type { Axis, Moment } from "./lines.ts";
import type { Colour } from "./palette.ts";

/** What plots over time have in common. */
export interface Timeframe {
  movement: Movement;
  /** What times are counted from, on the monotonic clock. */
  zeroNs: number;
  /** Of the guest. */
  totalPages: number;
  moments: readonly Moment[];
}

export const COLOUR_OF: Readonly<Record<KindName, Colour>> = {
  precopy: "slate",
  push: "blue",
  request: "vermilion",
  replay: "green",
};

/** Milliseconds from the zero of a plot. */
export const msSince = (zeroNs: number, atNs: number): number => (atNs - zeroNs) / 1e6;

/** From zero to the last sample or moment. */
export function timeAxis({ movement, zeroNs, moments }: Timeframe): Axis {
  const end = msSince(zeroNs, movement.samples.at(-1)?.endNs ?? zeroNs);
  const greatest = Math.max(end, ...moments.map(({ x }) => x));
  return { title: "time", unit: "ms", scale: "exact", greatest };
}

/** Pages of each kind in a sample. */
export function pagesByKind({ pages }: Sample, bins: number): number[] {
  return KINDS.map((_, kind) => {
    let sum = 0;
    for (let bin = 0; bin < bins; bin++) sum += pages[kind * bins + bin] ?? 0;
    return sum;
  });
}

/** Pages that moved in all, for each of KINDS. */
export function movedPages({ samples, bins }: Movement): number[] {
  const sums = KINDS.map(() => 0);
  for (const sample of samples) {
    pagesByKind(sample, bins).forEach((count, kind) => (sums[kind] = (sums[kind] ?? 0) + count));
  }
  return sums;
}

/** Kinds of which there is any, with their place in KINDS. */
export function kindsOf(movement: Movement): { name: KindName; kind: number; colour: Colour }[] {
  const sums = movedPages(movement);
  return KINDS.map((name, kind) => ({ name, kind, colour: COLOUR_OF[name] })).filter(
    ({ kind }) => (sums[kind] ?? 0) > 0,
  );
}
