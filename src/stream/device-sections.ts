/**
 * Device state split into its sections, by somebody who knows none of the devices. FULL sections
 * lie one behind the other, as a package or a stream that completed in precopy has them:
 *
 *     04 u32 id, str8 name, u32 instance, u32 version | body | 7e u32 id
 *
 * A body has no length, and may hold any bytes. So the ends are proven: a section ends where a
 * footer with its own id is followed by the next header, or by the end of all. Mostly there is one
 * way through; where there are several, the sections that are on every way are still certain, and
 * the stretch between two of those is reported as what it is.
 */
import { SECTION } from "./constants.ts";
import {
  CANDIDATES_MAX,
  endKey,
  findCandidates,
  FOOTER_BYTES,
  nameOf,
  readHeader,
} from "./device-candidates.ts";
import type { Candidate } from "./device-candidates.ts";
import type { DeviceSection } from "./section.ts";
import type { DescribedDevice } from "./vm-description.ts";

/** A piece of device state; offsets count from its first byte. */
export interface DeviceStretch {
  /** The header that stands at `at`; undefined where none does. */
  section: DeviceSection | undefined;
  at: number;
  /** One past its footer, or past the last byte of which nobody knows whose it is. */
  end: number;
  /** Whether it is that section and nothing else. */
  proven: boolean;
}

/** Passes that each rule a candidate out; one is enough for what is no attack. */
const PASSES_MAX = 64;
/** Candidates looked at, over all passes: state that is made to take longer is not split. */
export const LOOKS_MAX = 64 * CANDIDATES_MAX;

/** How much more may be looked at; state can be made so that every way through it is open. */
export class LookLimit {
  left: number;

  constructor(left = LOOKS_MAX) {
    this.left = left;
  }

  /** Counts a look at so many candidates; false when that is more than are left. */
  allows(candidates: readonly unknown[]): boolean {
    this.left -= candidates.length;
    return this.left >= 0;
  }
}

/**
 * Splits a run of FULL sections. `described`, where the stream has a description, says which
 * devices there are and in which order; a run that is not so is split without. State that would take
 * more looks than `limit` is one stretch of which nothing is proven.
 */
export function splitDeviceSections(
  bytes: Uint8Array,
  described?: readonly DescribedDevice[],
  limit: LookLimit = new LookLimit(),
): DeviceStretch[] {
  if (bytes.length === 0) return [];
  const whole = [{ section: undefined, at: 0, end: bytes.length, proven: false }];
  if (described !== undefined) {
    const stretches = split(bytes, described, limit);
    if (stretches?.every(({ proven }) => proven) === true) return stretches;
    const measured = splitByLengths(bytes, described);
    if (measured !== undefined) return measured;
  }
  return split(bytes, undefined, limit) ?? whole;
}

/** Whether the sections are just the devices that a description lists, in its order. */
export function areDescribed(
  stretches: readonly DeviceStretch[],
  described: readonly DescribedDevice[],
): boolean {
  return (
    stretches.length === described.length &&
    described.every(({ idstr, instanceId }, index) => {
      const section = stretches[index]?.section;
      return section?.idstr === idstr && section.instanceId === instanceId;
    })
  );
}

function split(
  bytes: Uint8Array,
  order: readonly DescribedDevice[] | undefined,
  limit: LookLimit,
): DeviceStretch[] | undefined {
  let candidates = findCandidates(bytes, order);
  if (candidates.length > CANDIDATES_MAX || !limit.allows(candidates)) return undefined;
  const last = endKey(bytes, order);
  const toEnd = leadTo(candidates, last);
  const begins = candidates[0]?.at === 0;
  const fromStart = begins ? followStart(candidates) : [];
  const furthest = candidates.findLast((_, index) => fromStart[index]);
  if (begins && toEnd[0] === true) {
    candidates = candidates.filter((_, index) => fromStart[index] === true && toEnd[index]);
    return certain(candidates, bytes.length, last, limit);
  }
  return around(candidates, fromStart, toEnd, furthest, bytes.length, last, limit);
}

/** Bytes with damage in them: what is certain before it, what is behind it, and the rest between. */
function around(
  candidates: readonly Candidate[],
  fromStart: readonly boolean[],
  toEnd: readonly boolean[],
  furthest: Candidate | undefined,
  length: number,
  last: number,
  limit: LookLimit,
): DeviceStretch[] | undefined {
  const stretches: DeviceStretch[] = [];
  const brokenAt = furthest?.at ?? 0;
  if (furthest !== undefined) {
    const head = candidates.filter((one, index) => fromStart[index] && one.at < brokenAt);
    const leads = leadTo(head, furthest.before);
    const kept = head.filter((_, index) => leads[index]);
    const before = certain(kept, brokenAt, furthest.before, limit);
    if (before === undefined) return undefined;
    stretches.push(...before);
  }
  const tail = candidates.filter((one, index) => toEnd[index] && one.at > brokenAt);
  const goesOnAt = tail[0]?.at ?? length;
  const section = furthest === undefined ? undefined : sectionOf(furthest);
  stretches.push({ section, at: brokenAt, end: goesOnAt, proven: false });
  const behind = certain(tail, length, last, limit);
  return behind === undefined ? undefined : [...stretches, ...behind];
}

/**
 * The stretches of candidates that all lie on a way from the first to `end`, before which the
 * footer says `last`; undefined where that takes too many looks.
 */
function certain(
  candidates: readonly Candidate[],
  end: number,
  last: number,
  limit: LookLimit,
): DeviceStretch[] | undefined {
  let left = [...candidates];
  for (let pass = 0; pass < PASSES_MAX; pass++) {
    if (!limit.allows(left)) return undefined;
    const sure = onEveryWay(left, end, last);
    const isSure = new Set(sure);
    const ids = new Set(sure.map(({ sectionId }) => sectionId));
    const names = new Set(sure.map(nameOf));
    // No id and no name is used twice, so what repeats a certain one is no section.
    const possible = left.filter(
      (one) => isSure.has(one) || !(ids.has(one.sectionId) || names.has(nameOf(one))),
    );
    if (possible.length === left.length) return stretchesOf(left, sure, end);
    const fromStart = followStart(possible);
    const toEnd = leadTo(possible, last);
    left = possible.filter((_, index) => fromStart[index] === true && toEnd[index]);
  }
  return stretchesOf(left, onEveryWay(left, end, last), end);
}

function stretchesOf(
  left: readonly Candidate[],
  sure: readonly Candidate[],
  end: number,
): DeviceStretch[] {
  const isSure = new Set(sure);
  // Both in their order, so that each is looked at once.
  const doubts = left.filter((one) => !isSure.has(one)).map(({ at }) => at);
  let next = 0;
  return sure.map((one, index) => {
    const stretchEnd = sure[index + 1]?.at ?? end;
    while ((doubts[next] ?? end) <= one.at) next++;
    const doubted = (doubts[next] ?? end) < stretchEnd;
    const proven = !doubted && one.bodyAt + FOOTER_BYTES <= stretchEnd;
    return { section: sectionOf(one), at: one.at, end: stretchEnd, proven };
  });
}

/** The candidates that no way leads around: none that begins before them ends behind them. */
function onEveryWay(candidates: readonly Candidate[], end: number, last: number): Candidate[] {
  const furthest = new Map<number, number>([[last, end]]);
  for (const { before, at } of candidates) {
    furthest.set(before, Math.max(furthest.get(before) ?? 0, at));
  }
  let reach = 0;
  return candidates.filter((one) => {
    const isSure = reach <= one.at;
    reach = Math.max(reach, furthest.get(one.key) ?? 0);
    return isSure;
  });
}

/** Which candidates can be reached from the first, by index. */
function followStart(candidates: readonly Candidate[]): boolean[] {
  const open = new Set<number>();
  return candidates.map((one, index) => {
    const isReached = index === 0 || open.has(one.before);
    if (isReached) open.add(one.key);
    return isReached;
  });
}

/** From which candidates there is a way to the footer `last`, by index. */
function leadTo(candidates: readonly Candidate[], last: number): boolean[] {
  const wanted = new Set([last]);
  const leads = Array.from(candidates, () => false);
  for (let index = candidates.length - 1; index >= 0; index--) {
    const one = candidates[index];
    if (one === undefined || !wanted.has(one.key)) continue;
    leads[index] = true;
    wanted.add(one.before);
  }
  return leads;
}

/** Splits by the lengths that the description adds up to; undefined where they do not fit. */
function splitByLengths(
  bytes: Uint8Array,
  described: readonly DescribedDevice[],
): DeviceStretch[] | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stretches: DeviceStretch[] = [];
  let at = 0;
  for (const device of described) {
    const header = readHeader(bytes, view, at);
    if (header === undefined || device.bytes === undefined) return undefined;
    const footerAt = header.bodyAt + device.bytes;
    const end = footerAt + FOOTER_BYTES;
    const fits = nameOf(header) === nameOf(device) && end <= bytes.length;
    if (!fits || bytes[footerAt] !== SECTION.footer) return undefined;
    if (view.getUint32(footerAt + 1) !== header.sectionId) return undefined;
    stretches.push({ section: sectionOf(header), at, end, proven: true });
    at = end;
  }
  return at === bytes.length ? stretches : undefined;
}

function sectionOf({ sectionId, idstr, instanceId, versionId }: DeviceSection): DeviceSection {
  return { sectionId, idstr, instanceId, versionId };
}
