/** How the values of a benchmark are written for people. */
import { formatValue } from "../report/page/units.ts";
import type { Figure } from "./result.ts";
import { spread } from "./statistics.ts";

/** Of one whose runs gave nothing. */
const NOTHING = "–";

/** "1.2 GiB/s (1.1 to 1.3)": the median and the ends; a unit that all three have is said once. */
export function formatSpread(values: readonly number[], unit: Figure["unit"]): string {
  if (values.length === 0) return NOTHING;
  const { median, least, greatest } = spread(values);
  const middle = formatValue(median, unit);
  if (values.length === 1) return middle;
  const written = middle.slice(middle.indexOf(" "));
  const ends = [least, greatest].map((value) => formatValue(value, unit));
  const alike = middle.includes(" ") && ends.every((end) => end.endsWith(written));
  const [from, to] = alike ? ends.map((end) => end.slice(0, -written.length)) : ends;
  return `${middle} (${from} to ${to})`;
}
