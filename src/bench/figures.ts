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

/** "1.2 GiB/s (1.1 to 1.3)": the median and the ends; a unit that all three have is said once. */
export function formatSpread(values: readonly number[], unit: Figure["unit"]): string {
  const { median, least, greatest } = spread(values);
  const middle = formatValue(median, unit);
  if (values.length < 2) return middle;
  const written = middle.slice(middle.indexOf(" "));
  const ends = [least, greatest].map((value) => formatValue(value, unit));
  const alike = middle.includes(" ") && ends.every((end) => end.endsWith(written));
  const [from, to] = alike ? ends.map((end) => end.slice(0, -written.length)) : ends;
  return `${middle} (${from} to ${to})`;
}
