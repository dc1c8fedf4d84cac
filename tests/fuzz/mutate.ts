/**
 * Mutations of bytes whose layout is known: of fields, of whole records and sections, across two
 * recordings, and blind ones. A mutation is a list of edits, so that a case can be shrunk to those
 * that matter.
 */
import type { Field, Layout, Span } from "./layout.ts";
import type { Random } from "../helpers/random.ts";

/** Bytes [at, end) of the original become `bytes`. */
export interface Edit {
  at: number;
  end: number;
  bytes: Uint8Array;
  what: string;
}

/** What is mutated. */
export interface Material {
  name: string;
  bytes: Uint8Array;
  layout: Layout;
}

const NONE = new Uint8Array(0);
/** Longest run that a blind mutation writes, inserts or takes out. */
const RUN_BYTES_MAX = 64;
const PAGE = 4096;

/** The original with edits; of two that overlap the later one in the list is left out. */
export function applyEdits(bytes: Uint8Array, edits: readonly Edit[]): Uint8Array {
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const each of edits.toSorted((a, b) => a.at - b.at || a.end - b.end)) {
    if (each.at < at) continue;
    parts.push(bytes.subarray(at, each.at), each.bytes);
    at = each.end;
  }
  parts.push(bytes.subarray(at));
  return new Uint8Array(Buffer.concat(parts));
}

/** One to six mutations, mostly one; `others` can be spliced in. */
export function mutate(random: Random, material: Material, others: readonly Material[]): Edit[] {
  const count = random.chance(60) ? 1 : random.chance(60) ? 2 : 3 + random.below(4);
  return Array.from({ length: count }, () => oneMutation(random, material, others)).flat();
}

type Mutation = (random: Random, material: Material, others: readonly Material[]) => Edit[];

const MUTATIONS: readonly [weight: number, Mutation][] = [
  [16, flipFieldBit],
  [18, setField],
  [12, nudgeField],
  [8, swapFieldValues],
  [6, growBlock],
  [8, repeatSpan],
  [8, dropSpan],
  [6, swapSpans],
  [6, moveSpan],
  [6, truncate],
  [6, splice],
  [8, scribble],
  [4, insertNoise],
  [4, takeOut],
];
const WEIGHTS = MUTATIONS.reduce((sum, [weight]) => sum + weight, 0);

function oneMutation(random: Random, material: Material, others: readonly Material[]): Edit[] {
  let rest = random.below(WEIGHTS);
  const found = MUTATIONS.find(([weight]) => (rest -= weight) < 0);
  const edits = found?.[1](random, material, others) ?? [];
  return edits.length > 0 ? edits : scribble(random, material);
}

/** A field; each kind is as likely, however often it occurs. */
function pickField({ layout }: Material, random: Random): Field | undefined {
  if (layout.fields.length === 0) return undefined;
  const kinds = [...new Set(layout.fields.map(({ what }) => what))];
  const kind = random.pick(kinds);
  return random.pick(layout.fields.filter(({ what }) => what === kind));
}

function pickSpan({ layout }: Material, random: Random): Span | undefined {
  if (layout.spans.length === 0) return undefined;
  const kind = random.pick([...new Set(layout.spans.map(({ what }) => what))]);
  return random.pick(layout.spans.filter(({ what }) => what === kind));
}

function change(at: number, end: number, bytes: Uint8Array, what: string): Edit {
  return { at, end, bytes, what };
}

function flipFieldBit(random: Random, material: Material): Edit[] {
  const field = pickField(material, random);
  if (field === undefined) return [];
  const at = field.at + random.below(field.bytes);
  const value = (material.bytes[at] ?? 0) ^ (1 << random.below(8));
  return [change(at, at + 1, Uint8Array.of(value), `a bit of ${field.what}`)];
}

/** Numbers at which programs go wrong, in as many bytes as the field has. */
const ODD_NUMBERS: readonly bigint[] = [
  ...[0n, 1n, 2n, 0x7fn, 0x80n, 0xffn, 0x100n, 0x7fffn, 0x8000n, 0xffffn, 0x1_0000n],
  ...[0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, 0x1_0000_0000n, 0xffff_f000n],
  ...[0x1f_ffff_ffff_ffffn, 0x20_0000_0000_0000n, 0x7fff_ffff_ffff_ffffn],
  ...[0xffff_ffff_ffff_ffffn, 0xffff_ffff_ffff_f000n, 0x1000n, 0x20_0000n, 0x4000_0000n],
];

function number(value: bigint, bytes: number): Uint8Array {
  const all = new Uint8Array(8);
  new DataView(all.buffer).setBigUint64(0, BigInt.asUintN(64, value));
  return all.slice(8 - bytes);
}

function valueOf({ bytes }: Material, field: Field): bigint {
  const hex = Buffer.from(bytes.subarray(field.at, field.at + field.bytes)).toString("hex");
  return BigInt(`0x${hex}`);
}

function setField(random: Random, material: Material): Edit[] {
  const field = pickField(material, random);
  if (field === undefined) return [];
  const bytes = Math.min(field.bytes, 8);
  const value = number(random.pick(ODD_NUMBERS), bytes);
  return [change(field.at, field.at + bytes, value, `${field.what} set`)];
}

function nudgeField(random: Random, material: Material): Edit[] {
  const field = pickField(material, random);
  if (field === undefined || field.bytes > 8) return [];
  const step = random.pick([1n, -1n, 8n, -8n, 16n, 0x1000n, -0x1000n]);
  const value = number(valueOf(material, field) + step, field.bytes);
  return [change(field.at, field.at + field.bytes, value, `${field.what} ${step}`)];
}

/** A field gets what another one says, which is right in another place. */
function swapFieldValues(random: Random, material: Material): Edit[] {
  const to = pickField(material, random);
  if (to === undefined) return [];
  const like = material.layout.fields.filter(({ bytes }) => bytes === to.bytes);
  const from = random.pick(like);
  const bytes = material.bytes.slice(from.at, from.at + from.bytes);
  return [change(to.at, to.at + to.bytes, bytes, `${to.what} as ${from.what}`)];
}

/** A RAM block that is larger than it is, in a list whose sum is right. */
function growBlock(random: Random, material: Material): Edit[] {
  const { fields } = material.layout;
  const total = fields.find(({ what }) => what === "list.total");
  const lengths = fields.filter(({ what }) => what === "block.length");
  if (total === undefined || lengths.length === 0) return [];
  const length = random.pick(lengths);
  // Up to 512 MiB, which is taken, or more than any host has.
  const shift = random.chance(70) ? random.below(18) : 32 + random.below(8);
  const more = BigInt(PAGE) << BigInt(shift);
  return [total, length].map((field) => {
    const value = number(valueOf(material, field) + more, 8);
    return change(field.at, field.at + 8, value, `${field.what} and ${more} more`);
  });
}

function repeatSpan(random: Random, material: Material): Edit[] {
  const span = pickSpan(material, random);
  if (span === undefined) return [];
  const bytes = material.bytes.slice(span.at, span.end);
  return [change(span.end, span.end, bytes, `${span.what} twice`)];
}

function dropSpan(random: Random, material: Material): Edit[] {
  const span = pickSpan(material, random);
  return span === undefined ? [] : [change(span.at, span.end, NONE, `${span.what} dropped`)];
}

function swapSpans(random: Random, material: Material): Edit[] {
  const one = pickSpan(material, random);
  if (one === undefined) return [];
  const other = random.pick(material.layout.spans.filter(({ what }) => what === one.what));
  if (other.at < one.end && one.at < other.end) return [];
  return [
    change(one.at, one.end, material.bytes.slice(other.at, other.end), `${one.what} swapped`),
    change(other.at, other.end, material.bytes.slice(one.at, one.end), `${one.what} swapped`),
  ];
}

function moveSpan(random: Random, material: Material): Edit[] {
  const span = pickSpan(material, random);
  const place = pickSpan(material, random);
  if (span === undefined || place === undefined) return [];
  const bytes = material.bytes.slice(span.at, span.end);
  return [change(place.at, place.at, bytes, `${span.what} before ${place.what}`)];
}

function truncate(random: Random, material: Material): Edit[] {
  const field = pickField(material, random);
  if (field === undefined) return [];
  const at = field.at + random.below(field.bytes + 1);
  return [change(at, material.bytes.length, NONE, `cut off at ${field.what}`)];
}

/** Goes on, from the beginning of a span, as another recording does from one of the same kind. */
function splice(random: Random, material: Material, others: readonly Material[]): Edit[] {
  const span = pickSpan(material, random);
  if (span === undefined || others.length === 0) return [];
  const other = random.pick(others);
  const there = other.layout.spans.filter(({ what }) => what === span.what);
  if (there.length === 0) return [];
  const rest = other.bytes.slice(random.pick(there).at);
  return [change(span.at, material.bytes.length, rest, `goes on as ${other.name}`)];
}

function somewhere(random: Random, { bytes }: Material, length: number): number {
  return random.below(Math.max(1, bytes.length - length));
}

function scribble(random: Random, material: Material): Edit[] {
  const length = random.chance(50) ? 1 : 1 + random.below(RUN_BYTES_MAX);
  const at = somewhere(random, material, length);
  const end = Math.min(at + length, material.bytes.length);
  return [change(at, end, random.bytes(end - at), "scribbled over")];
}

function insertNoise(random: Random, material: Material): Edit[] {
  const at = somewhere(random, material, 0);
  return [change(at, at, random.bytes(1 + random.below(RUN_BYTES_MAX)), "noise put in")];
}

function takeOut(random: Random, material: Material): Edit[] {
  const length = 1 + random.below(RUN_BYTES_MAX);
  const at = somewhere(random, material, length);
  return [change(at, Math.min(at + length, material.bytes.length), NONE, "taken out")];
}
