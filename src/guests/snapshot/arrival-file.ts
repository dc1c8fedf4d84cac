/** arrival.json as it is read back: nothing in it is taken on trust. Main reads it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { RAM_BLOCKS_MAX } from "../../stream/constants.ts";
import { ARRIVAL_FORMAT } from "./arrival.ts";
import type { Arrival, TakenOver } from "./arrival.ts";
import { damagedSnapshot } from "./damage.ts";
import { ARRIVAL_FILE, PACKAGE_FILE, sha256, SNAPSHOT_VERSION } from "./layout.ts";
import { blockShape, fileSchema } from "./manifest.ts";

const arrivalSchema = z.strictObject({
  format: z.literal(ARRIVAL_FORMAT),
  version: z.literal(SNAPSHOT_VERSION),
  program: z.string(),
  bootId: z.string(),
  machineType: z.string().max(255),
  uuid: z.guid().optional(),
  ramSectionId: z.int().nonnegative(),
  sourceIsOurs: z.boolean(),
  blocks: z.array(z.strictObject(blockShape)).min(1).max(RAM_BLOCKS_MAX),
  package: fileSchema(PACKAGE_FILE),
});

/** @throws PostcopyError DAMAGED_SNAPSHOT. */
export function readArrival(directory: string): TakenOver {
  const arrival = parseArrival(directory, Buffer.from(read(directory, ARRIVAL_FILE)).toString());
  const bytes = read(directory, PACKAGE_FILE);
  if (sha256(bytes) === arrival.package.sha256) return { arrival, package: bytes };
  throw damaged(directory, `${PACKAGE_FILE} does not have the checksum that ${ARRIVAL_FILE} says`);
}

function read(directory: string, name: string): Uint8Array {
  try {
    return new Uint8Array(readFileSync(join(directory, name)));
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
