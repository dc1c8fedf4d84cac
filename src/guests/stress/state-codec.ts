/**
 * The device state on the wire: the body of the stress device's VMState section. All numbers are
 * big-endian except the version table, which lies in the order of its words in memory
 * (little-endian, as are all hosts that Bun runs on), because it is large and copied while the guest
 * stands still.
 *
 *     u32 workers, u32 blocks, u32 page size, u32 seed, u64 size, u64 rate, u64 duration in ms
 *     f64 hot fraction, f64 hot share, f64 zero fraction, f64 discard rate
 *     f64 stop time in ns, str8 boot id
 *     workers × { u64 operations, 4 × u32 generator state }
 *     u32 descriptors, descriptors × { u32 page, u32 version }
 *     u32 pages, pages × u32 version (little-endian)
 *
 * An update is what may have changed since the state, or the update before it, was sent:
 *
 *     f64 stop time in ns, str8 boot id
 *     workers × { u64 operations, 4 × u32 generator state }
 *     u32 descriptors, descriptors × { u32 page, u32 version }
 *     u32 changes, changes × u32 page, changes × u32 version (both little-endian)
 */
import type { StreamReader } from "../../stream/reader.ts";
import type { StreamWriter } from "../../stream/writer.ts";
import { StreamError } from "../../util/errors.ts";
import type { WorkerProgress } from "./control.ts";
import type { PageDescriptor } from "./descriptors.ts";
import { GENERATOR_WORDS } from "./generator.ts";
import {
  blockLayout,
  pageCount,
  parameterProblem,
  type StressBlock,
  type StressParameters,
} from "./parameters.ts";
import type { StopTime, StressState, StressUpdate } from "./state.ts";

/** More than any version of this program points at. */
const DESCRIPTORS_MAX = 4096;
/** A boot id is a UUID in text. */
const BOOT_ID_BYTES_MAX = 64;
/** The version table is read in pieces of this size, so that it is never in memory twice. */
const TABLE_PIECE_BYTES = 1024 * 1024;

/** Writes the state of a parked guest. */
export function encodeStressState(writer: StreamWriter, state: StressState): void {
  const { parameters, stopTime, progress, descriptors } = state;
  writeParameters(writer, parameters);
  writeMoment(writer, { stopTime, progress, descriptors });
  writer.u32(pageCount(parameters)).raw(new Uint8Array(state.versions));
}

/** Writes an update. */
export function encodeStressUpdate(writer: StreamWriter, update: StressUpdate): void {
  const { pages, versions } = update.changes;
  writeMoment(writer, update);
  writer.u32(pages.length).raw(bytesOf(pages)).raw(bytesOf(versions));
}

function bytesOf({ buffer, byteOffset, byteLength }: Uint32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** What is of the very moment. */
type Moment = Pick<StressState, "stopTime" | "progress" | "descriptors">;

function writeMoment(writer: StreamWriter, { stopTime, progress, descriptors }: Moment): void {
  writeF64(writer, stopTime.monotonicNs);
  writer.str8(stopTime.bootId);
  for (const { operations, generator } of progress) {
    writer.u64(operations);
    for (const word of generator) writer.u32(word);
  }
  writer.u32(descriptors.length);
  for (const { page, version } of descriptors) writer.u32(page).u32(version);
}

/**
 * Reads a state whose guest must have exactly the RAM blocks `ramBlocks` (names, lengths and
 * order). Throws StreamError BAD_STATE when a count or value is out of bounds, BLOCK_MISMATCH when
 * the blocks differ; the descriptors' pages are for checkDescriptors to look at.
 */
export function decodeStressState(
  reader: StreamReader,
  ramBlocks: readonly StressBlock[],
): StressState {
  const parameters = readParameters(reader);
  checkBlocks(blockLayout(parameters), ramBlocks);
  const stopTime = readStopTime(reader);
  const progress = readProgress(reader, parameters.workers);
  const descriptors = readDescriptors(reader);
  const versions = readVersions(reader, pageCount(parameters));
  checkAgainstTable(descriptors, new Uint32Array(versions));
  return { parameters, stopTime, progress, descriptors, versions };
}

/**
 * Reads an update of a guest with so many workers, and writes the versions that it changes into
 * `versions`. Throws StreamError BAD_STATE when a count or value is out of bounds.
 */
export function decodeStressUpdate(
  reader: StreamReader,
  workers: number,
  versions: SharedArrayBuffer,
): Moment {
  const stopTime = readStopTime(reader);
  const progress = readProgress(reader, workers);
  const descriptors = readDescriptors(reader);
  const table = new Uint32Array(versions);
  readChanges(reader, table);
  checkAgainstTable(descriptors, table);
  return { stopTime, progress, descriptors };
}

function checkAgainstTable(descriptors: readonly PageDescriptor[], table: Uint32Array): void {
  for (const { page, version } of descriptors) {
    if (table[page] === version) continue;
    throw badState(`it points at page ${page} in version ${version}, unlike its table`);
  }
}

function readChanges(reader: StreamReader, table: Uint32Array): void {
  const count = reader.u32();
  if (count > table.length) throw badState(`${count} of its ${table.length} versions changed`);
  const pages = readWords(reader, count);
  const versions = readWords(reader, count);
  for (let i = 0; i < count; i++) {
    const page = pages[i] ?? 0;
    if (page >= table.length) throw badState(`the version of its page ${page} changed`);
    table[page] = versions[i] ?? 0;
  }
}

/** Little-endian words. */
function readWords(reader: StreamReader, count: number): Uint32Array {
  const words = new Uint32Array(count);
  readInto(reader, new Uint8Array(words.buffer));
  return words;
}

function writeParameters(writer: StreamWriter, parameters: StressParameters): void {
  const { workers, blocks, pageSize, seed, size, rate, durationMs } = parameters;
  writer.u32(workers).u32(blocks).u32(pageSize).u32(seed).u64(size).u64(rate).u64(durationMs);
  writeF64(writer, parameters.hotFraction);
  writeF64(writer, parameters.hotShare);
  writeF64(writer, parameters.zeroFraction);
  writeF64(writer, parameters.discardRate);
}

function readParameters(reader: StreamReader): StressParameters {
  const parameters: StressParameters = {
    workers: reader.u32(),
    blocks: reader.u32(),
    pageSize: reader.u32(),
    seed: reader.u32(),
    size: reader.u64("size of the stress guest"),
    rate: reader.u64("rate of the stress guest"),
    durationMs: reader.u64("duration of the stress guest"),
    hotFraction: readF64(reader),
    hotShare: readF64(reader),
    zeroFraction: readF64(reader),
    discardRate: readF64(reader),
  };
  const problem = parameterProblem(parameters);
  if (problem !== undefined) throw badState(`its ${problem.parameter} ${problem.message}`);
  return parameters;
}

function checkBlocks(wanted: readonly StressBlock[], present: readonly StressBlock[]): void {
  const describe = (blocks: readonly StressBlock[]): string =>
    blocks.map(({ name, length }) => `${name} of ${length} bytes`).join(", ");
  if (describe(wanted) === describe(present)) return;
  throw new StreamError(
    "BLOCK_MISMATCH",
    `The stress guest's state is of RAM blocks ${describe(wanted)}; there are ${describe(present)}`,
    { hint: "the state and the RAM blocks must come from the same guest" },
  );
}

function readStopTime(reader: StreamReader): StopTime {
  const monotonicNs = readF64(reader);
  const bootId = reader.str8();
  if (!(monotonicNs >= 0 && Number.isFinite(monotonicNs))) {
    throw badState(`its stop time is ${monotonicNs} ns`);
  }
  if (bootId.length > BOOT_ID_BYTES_MAX) throw badState(`its boot id has ${bootId.length} bytes`);
  return { monotonicNs, bootId };
}

function readProgress(reader: StreamReader, workers: number): WorkerProgress[] {
  return Array.from({ length: workers }, () => ({
    operations: reader.u64("number of operations of a stress worker"),
    generator: Uint32Array.from({ length: GENERATOR_WORDS }, () => reader.u32()),
  }));
}

function readDescriptors(reader: StreamReader): PageDescriptor[] {
  const count = reader.u32();
  if (count > DESCRIPTORS_MAX) {
    throw badState(`it points at ${count} pages, more than ${DESCRIPTORS_MAX}`);
  }
  return Array.from({ length: count }, () => ({ page: reader.u32(), version: reader.u32() }));
}

function readVersions(reader: StreamReader, pages: number): SharedArrayBuffer {
  const count = reader.u32();
  if (count !== pages) throw badState(`it has ${count} versions for ${pages} pages`);
  const versions = new SharedArrayBuffer(pages * 4);
  readInto(reader, new Uint8Array(versions));
  return versions;
}

function readInto(reader: StreamReader, target: Uint8Array): void {
  for (let at = 0; at < target.length; at += TABLE_PIECE_BYTES) {
    target.set(reader.take(Math.min(TABLE_PIECE_BYTES, target.length - at)), at);
  }
}

function writeF64(writer: StreamWriter, value: number): void {
  const bytes = new Uint8Array(new ArrayBuffer(8));
  new DataView(bytes.buffer).setFloat64(0, value);
  writer.raw(bytes);
}

function readF64(reader: StreamReader): number {
  return new DataView(reader.take(8).buffer).getFloat64(0);
}

/** `what` is a clause of its own. */
function badState(what: string): StreamError {
  return new StreamError("BAD_STATE", `The stress guest's device state is damaged: ${what}`, {
    hint: "source and destination must be the same version of postcopy",
  });
}
