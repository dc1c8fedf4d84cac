/**
 * Where in device state a FULL section may begin (device-sections.ts): at the first byte, and wherever
 * what looks like a footer is followed by what looks like a header. That is no proof: a body may hold both.
 */
import { SECTION } from "./constants.ts";
import { byteString } from "./reader.ts";
import type { DeviceSection } from "./section.ts";
import type { DescribedDevice } from "./vm-description.ts";

/** A place at which a section may begin. */
export interface Candidate extends DeviceSection {
  at: number;
  bodyAt: number;
  /** What the footer before it must say; -1 for the first. */
  before: number;
  /** What the footer behind it must say. */
  key: number;
}

/** The byte 0x7e and the id. */
export const FOOTER_BYTES = 5;
/** The byte, the id, the length of a name, the instance and the version. */
const HEADER_FIXED_BYTES = 14;
/** Above what any device has; QEMU's are below 100. */
const VERSION_MAX = 0xffff;
/** Places at which a section may begin; a machine of a thousand processors has some thousands. */
export const CANDIDATES_MAX = 65_536;
/** Above any id: keys of a known order are ids of their place in it. */
const TWO_32 = 0x1_0000_0000;

/** Every place at which a header stands, the first byte or behind a footer, in their order. */
export function findCandidates(
  bytes: Uint8Array,
  order: readonly DescribedDevice[] | undefined,
): Candidate[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const places = order === undefined ? undefined : new Map(order.map((one, i) => [nameOf(one), i]));
  const candidates: Candidate[] = [];
  // One more than are taken shows that there are too many.
  const isFull = (): boolean => candidates.length > CANDIDATES_MAX;
  const consider = (at: number, footer: number): void => {
    const header = readHeader(bytes, view, at);
    if (header === undefined || header.sectionId === footer) return;
    const place = places === undefined ? 0 : places.get(nameOf(header));
    if (place === undefined) return;
    const step = places === undefined ? 0 : 1;
    const before = footer < 0 ? -1 : footer + (place - step) * TWO_32;
    candidates.push({ ...header, before, key: header.sectionId + place * TWO_32 });
  };
  consider(0, -1);
  for (
    let at = bytes.indexOf(SECTION.footer);
    at >= 0;
    at = bytes.indexOf(SECTION.footer, at + 1)
  ) {
    if (at + FOOTER_BYTES >= bytes.length || isFull()) break;
    consider(at + FOOTER_BYTES, view.getUint32(at + 1));
  }
  return candidates;
}

/** What the footer that ends all must say; -2, which none does, where no footer is the last thing. */
export function endKey(bytes: Uint8Array, order: readonly DescribedDevice[] | undefined): number {
  const at = bytes.length - FOOTER_BYTES;
  if (at < 0 || bytes[at] !== SECTION.footer) return -2;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const place = order === undefined ? 0 : order.length - 1;
  return view.getUint32(at + 1) + place * TWO_32;
}

/** The header that stands at `at`, if it looks like one. */
export function readHeader(
  bytes: Uint8Array,
  view: DataView,
  at: number,
): Omit<Candidate, "before" | "key"> | undefined {
  if (bytes[at] !== SECTION.full || at + HEADER_FIXED_BYTES > bytes.length) return undefined;
  const nameLength = bytes[at + 5] ?? 0;
  const bodyAt = at + HEADER_FIXED_BYTES + nameLength;
  if (nameLength === 0 || bodyAt > bytes.length) return undefined;
  const idstr = byteString(bytes, at + 6, nameLength);
  const versionId = view.getUint32(bodyAt - 4);
  if (!/^[\x20-\x7e]+$/.test(idstr) || versionId > VERSION_MAX) return undefined;
  const sectionId = view.getUint32(at + 1);
  return { at, bodyAt, sectionId, idstr, instanceId: view.getUint32(bodyAt - 8), versionId };
}

/** What tells one device from all others. */
export function nameOf({ idstr, instanceId }: { idstr: string; instanceId: number }): string {
  return `${instanceId} ${idstr}`;
}
