/** arrival.json as it is read back: nothing in it is taken on trust. Main reads it. */
import { statSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { checkTables } from "../../ram/tables.ts";
import { PACKAGE_BYTES_MAX, RAM_BLOCKS_MAX, TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { IDENTITY_TEXT } from "../../stream/identity.ts";
import { checkPackageHead, scanPackageTail } from "../../stream/package.ts";
import { readRegular } from "../../util/files.ts";
import { ARRIVAL_FORMAT } from "./arrival.ts";
import type { Arrival, TakenOver } from "./arrival.ts";
import { damagedSnapshot } from "./damage.ts";
import {
  ARRIVAL_FILE,
  manifestBytesMax,
  PACKAGE_FILE,
  ramFile,
  sha256,
  SNAPSHOT_VERSION,
  SUM_BYTES,
  sumsFile,
} from "./layout.ts";
import { blockShape, blocksSchema, fileSchema } from "./manifest.ts";

/** Two checksums, as it was written and as it is now, and the bits of the destination. */
const BYTES_A_PAGE = 9;

const arrivalSchema = z.strictObject({
  format: z.literal(ARRIVAL_FORMAT),
  version: z.literal(SNAPSHOT_VERSION),
  program: z.string(),
  bootId: z.string(),
  machineType: z.string().max(255),
  uuid: z.guid().optional(),
  ramSectionId: z.int().nonnegative(),
  sourceIsOurs: z.boolean(),
  identity: z.string().regex(IDENTITY_TEXT).optional(),
  blocks: blocksSchema(z.strictObject(blockShape)),
  package: fileSchema(PACKAGE_FILE),
});

/**
 * Checks everything but the pages themselves, before a file is touched.
 * @throws PostcopyError DAMAGED_SNAPSHOT, BAD_PACKAGE, HostError NO_MEMORY.
 */
export function readArrival(directory: string): TakenOver {
  const text = new TextDecoder().decode(
    read(directory, ARRIVAL_FILE, manifestBytesMax(RAM_BLOCKS_MAX)),
  );
  const arrival = parseArrival(directory, text);
  checkTables(arrival.blocks, BYTES_A_PAGE);
  for (const [index, { length }] of arrival.blocks.entries()) {
    checkLength(directory, ramFile(index), length);
    checkLength(directory, sumsFile(index), (length / TARGET_PAGE_SIZE) * SUM_BYTES);
  }
  const bytes = read(directory, PACKAGE_FILE, PACKAGE_BYTES_MAX);
  if (sha256(bytes) !== arrival.package.sha256) {
    const what = `${PACKAGE_FILE} does not have the checksum that ${ARRIVAL_FILE} says`;
    throw damaged(directory, what);
  }
  checkPackageHead(bytes);
  scanPackageTail(bytes);
  return { arrival, package: bytes };
}

/** What is cut off of a file is a hole, and comes again; what is longer is not this guest's. */
function checkLength(directory: string, name: string, bytesMax: number): void {
  const stat = statSync(join(directory, name), { throwIfNoEntry: false });
  if (stat?.isFile() !== true) throw damaged(directory, `${name} is not a file`);
  if (stat.size <= bytesMax) return;
  throw damaged(directory, `${name} has ${stat.size} bytes, its block has room for ${bytesMax}`);
}

function read(directory: string, name: string, bytesMax: number): Uint8Array {
  try {
    return readRegular(join(directory, name), bytesMax);
  } catch (cause) {
    throw damaged(directory, `${name} cannot be read`, cause);
  }
}

function parseArrival(directory: string, text: string): Arrival {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw damaged(directory, `${ARRIVAL_FILE} is not JSON`, cause);
  }
  const parsed = arrivalSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw damaged(directory, `${ARRIVAL_FILE} is not valid: ${z.prettifyError(parsed.error)}`);
}

function damaged(directory: string, what: string, cause?: unknown): Error {
  return damagedSnapshot(directory, what, "the guest cannot be resumed here", cause);
}
