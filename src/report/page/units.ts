/** Values on axes and in tables, each in its unit. */
import { formatDuration } from "../../util/duration.ts";
import { formatBytes, formatCount, formatRate, threeDigits } from "../../util/units.ts";

/** Units of what is plotted: those of src/bench/result.ts, and some more. */
export type PlotUnit =
  "ns" | "us" | "ms" | "s" | "bytes" | "bytes/s" | "s/GiB" | "%" | "count" | "ratio";

/** Milliseconds in each unit of time. */
const MS_OF: Readonly<Record<"ns" | "us" | "ms" | "s", number>> = {
  ns: 1e-6,
  us: 1e-3,
  ms: 1,
  s: 1000,
};

/** A value for people, with its unit: "0.31 ms", "1.2 GiB/s". */
export function formatValue(value: number, unit: PlotUnit): string {
  switch (unit) {
    case "ns":
    case "us":
    case "ms":
    case "s":
      return formatDuration(value * MS_OF[unit]);
    case "bytes":
      return formatBytes(value);
    case "bytes/s":
      return formatRate(value);
    case "s/GiB":
      return `${shortNumber(value)} s/GiB`;
    case "%":
      return `${shortNumber(value)} %`;
    case "ratio":
      return `${shortNumber(value)} ×`;
    case "count":
      return Number.isInteger(value) ? formatCount(value) : shortNumber(value);
  }
}

/** Three digits that count, and no zeros behind them: 0.1, 0.05, 12.5, 1,234. */
function shortNumber(value: number): string {
  if (value >= 1000) return formatCount(value);
  if (value !== 0 && Math.abs(value) < 0.1) return String(Number(value.toPrecision(2)));
  return String(Number(threeDigits(value)));
}

/** A round value on an axis: as `formatValue`, without zeros behind the point ("1.5 s"). */
export function formatTick(value: number, unit: PlotUnit): string {
  return formatValue(value, unit).replace(/\.(\d*?)0+(?!\d)/, (_, digits: string) => {
    return digits === "" ? "" : `.${digits}`;
  });
}

/** The least difference that is shown: what is counted has no parts, and a time none below 1 ns. */
export function leastStep(unit: PlotUnit): number {
  if (unit === "count" || isBinary(unit)) return 1;
  return unit in MS_OF ? 1e-6 / MS_OF[unit as keyof typeof MS_OF] : 1e-6;
}

/** Whether round values of the unit are powers of two rather than of ten. */
export function isBinary(unit: PlotUnit): boolean {
  return unit === "bytes" || unit === "bytes/s";
}
