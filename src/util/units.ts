/**
 * Sizes, rates and counts as people write them. IEC prefixes (Ki, Mi, Gi, Ti) are powers of 1024,
 * SI prefixes with their B (kB, MB, GB) powers of 1000, as IEEE 1541 has it. A bare "4G" is taken as
 * QEMU takes it in `-m 4G`, as a power of 1024, for sizes; for rates it is refused with both
 * spellings offered, because there habits differ, and so is a rate without a unit.
 *
 * Every parser throws a UsageError that says what was written and what could be written; the one
 * who asked puts the name of the flag before it.
 */
import { UsageError } from "./errors.ts";

/** Longest text a parser looks at; anything longer is not a quantity. */
const QUANTITY_TEXT_MAX = 64;
/** How much of a wrong text is repeated in the message. */
const QUOTED_TEXT_MAX = 40;

const BYTE_UNITS: ReadonlyMap<string, number> = new Map([
  ["", 1],
  ["B", 1],
  ["KiB", 2 ** 10],
  ["MiB", 2 ** 20],
  ["GiB", 2 ** 30],
  ["TiB", 2 ** 40],
  ["kB", 1e3],
  ["MB", 1e6],
  ["GB", 1e9],
  ["TB", 1e12],
]);

/** Suffixes of QEMU's own sizes (`-m 4G`). */
const QEMU_UNITS: ReadonlyMap<string, number> = new Map([
  ["K", 2 ** 10],
  ["M", 2 ** 20],
  ["G", 2 ** 30],
  ["T", 2 ** 40],
]);

const BIT_UNITS: ReadonlyMap<string, number> = new Map([
  ["bit", 1 / 8],
  ["kbit", 1e3 / 8],
  ["Mbit", 1e6 / 8],
  ["Gbit", 1e9 / 8],
  ["Tbit", 1e12 / 8],
]);

const PAGE_UNITS: ReadonlyMap<string, number> = new Map([
  ["", 1],
  ["K", 2 ** 10],
  ["M", 2 ** 20],
  ["G", 2 ** 30],
  ["KiB", 2 ** 10],
  ["MiB", 2 ** 20],
  ["GiB", 2 ** 30],
]);

/** The smallest and the largest page that any supported machine has. */
const PAGE_SIZE_MIN = 2 ** 12;
const PAGE_SIZE_MAX = 2 ** 30;

const SIZE_HINT = "write a size as 4096, 512MiB, 4G (powers of 1024), or 2MB (of 1000)";
const RATE_HINT = "write a rate as 200MiB/s, 125MB/s or 1Gbit/s";
const PAGE_HINT = "write a page size as 4096, 4K or 2M";

/** A text of the user's in quotes, cut when it is long, for use inside a message. */
export function quoted(text: string): string {
  const shown = text.length > QUOTED_TEXT_MAX ? `${text.slice(0, QUOTED_TEXT_MAX)}…` : text;
  return JSON.stringify(shown);
}

interface Quantity {
  value: number;
  unit: string;
}

/** Splits "1.5 GiB" into 1.5 and "GiB"; undefined when it does not start with a decimal number. */
function splitQuantity(text: string): Quantity | undefined {
  if (text.length > QUANTITY_TEXT_MAX) return undefined;
  const match = /^(\d+(?:\.\d+)?) ?([A-Za-z/]*)$/.exec(text.trim());
  if (match === null) return undefined;
  return { value: Number(match[1]), unit: match[2] ?? "" };
}

/** What the writer of an ambiguous or misspelt byte unit may have meant; "" when nothing is near. */
function suggestByteUnit(unit: string): string {
  const match = /^([kmgt])(i?)b?$/i.exec(unit);
  const letter = match?.[1]?.toUpperCase();
  if (letter === undefined) return "";
  if (match?.[2] !== "") return `; did you mean ${letter}iB?`;
  const decimal = letter === "K" ? "kB" : `${letter}B`;
  return `; ${quoted(unit)} could be ${letter}iB (powers of 1024) or ${decimal} (powers of 1000)`;
}

function wholeBytes(text: string, value: number): number {
  const bytes = Math.round(value);
  if (Number.isSafeInteger(bytes)) return bytes;
  throw new UsageError("BAD_SIZE", `${quoted(text)} is more than this program can count`, {
    hint: "the largest size is 8191TiB",
  });
}

/** Bytes from "4096", "1GiB", "4G", "2MB". Fractions are rounded to whole bytes. */
export function parseBytes(text: string): number {
  const quantity = splitQuantity(text);
  if (quantity === undefined) {
    throw new UsageError("BAD_SIZE", `${quoted(text)} is not a size`, { hint: SIZE_HINT });
  }
  const factor = BYTE_UNITS.get(quantity.unit) ?? QEMU_UNITS.get(quantity.unit);
  if (factor === undefined) {
    throw new UsageError(
      "BAD_SIZE",
      `${quoted(text)} has no known unit of size${suggestByteUnit(quantity.unit)}`,
      { hint: SIZE_HINT },
    );
  }
  return wholeBytes(text, quantity.value * factor);
}

/** Bytes of a page from "4096", "4K", "2M", "1G", "2MiB": a power of two from 4 KiB to 1 GiB. */
export function parsePageSize(text: string): number {
  const quantity = splitQuantity(text);
  const factor =
    quantity === undefined
      ? undefined
      : (PAGE_UNITS.get(quantity.unit.toUpperCase()) ?? PAGE_UNITS.get(quantity.unit));
  const bytes = quantity === undefined || factor === undefined ? NaN : quantity.value * factor;
  const isPageSize =
    Number.isInteger(Math.log2(bytes)) && bytes >= PAGE_SIZE_MIN && bytes <= PAGE_SIZE_MAX;
  if (isPageSize) return bytes;
  throw new UsageError("BAD_PAGE_SIZE", `${quoted(text)} is not a page size`, { hint: PAGE_HINT });
}

/**
 * Bytes a second from "200MiB/s" or "1Gbit/s". Zero needs no unit: what it means (QEMU takes it for
 * "no limit") is for the flag to say.
 */
export function parseRate(text: string): number {
  const quantity = splitQuantity(text);
  if (quantity === undefined) {
    throw new UsageError("BAD_RATE", `${quoted(text)} is not a rate`, { hint: RATE_HINT });
  }
  if (quantity.unit === "" && quantity.value === 0) return 0;
  const unit = quantity.unit.endsWith("/s") ? quantity.unit.slice(0, -2) : undefined;
  const factor = unit === undefined ? undefined : (BYTE_UNITS.get(unit) ?? BIT_UNITS.get(unit));
  if (unit !== undefined && unit !== "" && factor !== undefined) {
    return wholeBytes(text, quantity.value * factor);
  }
  throw new UsageError(
    "BAD_RATE",
    `${quoted(text)} has no known unit of rate${suggestRateUnit(quantity.unit)}`,
    { hint: RATE_HINT },
  );
}

function suggestRateUnit(unit: string): string {
  // A small b is a bit, a capital B a byte: that letter decides, so its case is not ignored.
  const bits = /^([kKmMgGtT])(?:bps|b\/s|bit|bits|bits\/s)$/.exec(unit)?.[1];
  if (bits !== undefined) {
    return `; did you mean ${bits.toLowerCase() === "k" ? "k" : bits.toUpperCase()}bit/s?`;
  }
  const bytes = unit.replace(/(\/s|ps)$/, "");
  if (bytes !== "" && BYTE_UNITS.has(bytes)) return `; did you mean ${bytes}/s?`;
  return suggestByteUnit(bytes);
}

/** Three significant digits without a needless ".00", for values below 1024. */
export function threeDigits(value: number): string {
  if (Number.isInteger(value) || value >= 99.95) return String(Math.round(value));
  return value.toFixed(value >= 9.995 ? 1 : 2);
}

/** Bytes for people: "0 B", "4 KiB", "1.53 GiB". `parseBytes` reads it back within 0.5 %. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = "B";
  for (const larger of ["KiB", "MiB", "GiB", "TiB"]) {
    // 1023.6 would print as "1024": what rounds up to the next unit belongs there.
    if (Math.round(value) < 1024) break;
    value /= 1024;
    unit = larger;
  }
  return `${unit === "B" ? Math.round(value) : threeDigits(value)} ${unit}`;
}

/** A rate for people, from bytes a second: "812 MiB/s". */
export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

/** A page size as everyone writes it: "4K", "2M", "1G". */
export function formatPageSize(bytes: number): string {
  if (bytes >= 2 ** 30) return `${bytes / 2 ** 30}G`;
  if (bytes >= 2 ** 20) return `${bytes / 2 ** 20}M`;
  return `${bytes / 2 ** 10}K`;
}

const countFormat = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** A count with thousands separators: "1,234,567". */
export function formatCount(count: number): string {
  return countFormat.format(count);
}
