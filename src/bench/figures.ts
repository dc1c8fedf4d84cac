/** How a value of a benchmark is written for people. */
import { formatRate, formatBytes, formatCount, threeDigits } from "../util/units.ts";
import type { Figure } from "./result.ts";
import { spread } from "./statistics.ts";

/** Of one whose runs gave nothing. */
const NOTHING = "–";

/** A value with its unit. */
export function formatValue(value: number, unit: Figure["unit"]): string {
  if (Number.isNaN(value)) return NOTHING;
  switch (unit) {
    case "bytes/s":
      return formatRate(value);
    case "bytes":
      return formatBytes(value);
    case "count":
      return formatCount(value);
    case "us":
      return `${threeDigits(value)} µs`;
    case "%":
    case "ms":
    case "ns":
    case "s/GiB":
      return `${threeDigits(value)} ${unit}`;
  }
}

/** "1.2 GiB/s (1.1 GiB/s to 1.3 GiB/s)": the median, and the ends where they say more. */
export function formatSpread(values: readonly number[], unit: Figure["unit"]): string {
  const { median, least, greatest } = spread(values);
  const middle = formatValue(median, unit);
  if (values.length < 2) return middle;
  return `${middle} (${formatValue(least, unit)} to ${formatValue(greatest, unit)})`;
}
