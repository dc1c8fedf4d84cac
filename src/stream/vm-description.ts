/**
 * The description that follows a stream which completed in precopy: JSON that lists the devices in
 * the order of their sections, with the fields of each (QEMU's `vmdesc`, migration/savevm.c).
 *
 * Whoever sends a stream writes it, so it is measured before it is parsed: how deep it goes, and of
 * how many values it is. A parser takes some hundred bytes a value, and a recursion a frame a level.
 */

/** One device of a description. */
export interface DescribedDevice {
  idstr: string;
  instanceId: number;
  /** Bytes of its body, as its fields add up; undefined where the description does not say. */
  bytes: number | undefined;
}

/** What introduces a subsection beside its name: the byte, the name's length, the version. */
const SUBSECTION_HEADER_BYTES = 6;

/** Deepest nesting: four levels a subsection, of which QEMU nests a few. */
export const DESCRIPTION_DEPTH_MAX = 64;
/** Most values: a virtual processor has a thousand. */
export const DESCRIPTION_VALUES_MAX = 1024 * 1024;

/** Characters of JSON by their codes. */
const CODE = { quote: 0x22, comma: 0x2c, open: 0x5b, backslash: 0x5c, close: 0x5d } as const;
/** What `{` and `}` have that `[` and `]` do not. */
const BRACE_BIT = 0x20;

/** The devices that a description lists; undefined for what is no such description. */
export function readDescribedDevices(json: string): DescribedDevice[] | undefined {
  if (!isModest(json)) return undefined;
  const devices = arrayOf(parseJson(json), "devices")?.map(deviceOf);
  return devices?.every((device) => device !== undefined) === true ? devices : undefined;
}

/** Whether it is neither deeper nor of more values than any QEMU writes. */
function isModest(json: string): boolean {
  let depth = 0;
  let values = 0;
  for (let at = 0; at < json.length; at++) {
    const code = json.charCodeAt(at);
    if (code === CODE.quote) at = endOfString(json, at);
    else if (code === CODE.comma) values++;
    else if ((code & ~BRACE_BIT) === CODE.open) {
      values++;
      depth++;
    } else if ((code & ~BRACE_BIT) === CODE.close) depth--;
    if (depth > DESCRIPTION_DEPTH_MAX || values > DESCRIPTION_VALUES_MAX) return false;
  }
  return true;
}

/** The place of the quote that ends the string which begins at `at`. */
function endOfString(json: string, at: number): number {
  for (let end = at + 1; end < json.length; end++) {
    const code = json.charCodeAt(end);
    if (code === CODE.quote) return end;
    if (code === CODE.backslash) end++;
  }
  return json.length;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function memberOf(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  return Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined;
}

function arrayOf(value: unknown, name: string): readonly unknown[] | undefined {
  const member = memberOf(value, name);
  return Array.isArray(member) ? (member as unknown[]) : undefined;
}

/** A member that is a whole number from 0 on. */
function countOf(value: unknown, name: string): number | undefined {
  const member = memberOf(value, name);
  return typeof member === "number" && Number.isSafeInteger(member) && member >= 0
    ? member
    : undefined;
}

function deviceOf(value: unknown): DescribedDevice | undefined {
  const idstr = memberOf(value, "name");
  const instanceId = countOf(value, "instance_id");
  if (typeof idstr !== "string" || instanceId === undefined) return undefined;
  const bytes = arrayOf(value, "fields") === undefined ? undefined : bytesOf(value);
  return { idstr, instanceId, bytes };
}

/** What fields and subsections add up to. */
function bytesOf(value: unknown): number | undefined {
  let sum = 0;
  for (const field of arrayOf(value, "fields") ?? []) {
    const size = countOf(field, "size");
    const count = memberOf(field, "array_len") === undefined ? 1 : countOf(field, "array_len");
    if (size === undefined || count === undefined) return undefined;
    sum += size * count;
  }
  for (const subsection of arrayOf(value, "subsections") ?? []) {
    const name = memberOf(subsection, "vmsd_name");
    const inner = bytesOf(subsection);
    if (typeof name !== "string" || inner === undefined) return undefined;
    sum += SUBSECTION_HEADER_BYTES + name.length + inner;
  }
  return sum;
}
