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
import type { StopTime, StressState } from "./state.ts";

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
  writeF64(writer, stopTime.monotonicNs);
  writer.str8(stopTime.bootId);
  for (const { operations, generator } of progress) {
    writer.u64(operations);
    for (const word of generator) writer.u32(word);
  }
  writer.u32(descriptors.length);
  for (const { page, version } of descriptors) writer.u32(page).u32(version);
  writer.u32(pageCount(parameters)).raw(new Uint8Array(state.versions));
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
  const table = new Uint32Array(versions);
  for (const { page, version } of descriptors) {
    if (table[page] !== version) {
      throw badState(`it points at page ${page} in version ${version}, unlike its table`);
    }
  }
  return { parameters, stopTime, progress, descriptors, versions };
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
  const table = new Uint8Array(versions);
  for (let at = 0; at < table.length; at += TABLE_PIECE_BYTES) {
    table.set(reader.take(Math.min(TABLE_PIECE_BYTES, table.length - at)), at);
  }
  return versions;
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
