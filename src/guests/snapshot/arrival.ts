/**
 * A guest that is taken over, and whose pages are still coming. From the switch on it is whole
 * nowhere but at its source, which waits for a destination that has the device state. So that
 * another process can be that destination when this one dies (kill -9, a full disk, power), the
 * directory says before the guest is taken over:
 *
 *     arrival.json    who the guest is, and the checksum of package.bin; both are durable then
 *     ram-N.crc32     0 for every page that is still to come. Its checksum is written once the page
 *                     has been, in no matter which order the two get to the disk
 *
 * A page has arrived if what its file holds has the checksum that is written. Whatever got lost,
 * that of a page which never came does not match, and it is asked for again; that of a page which
 * came and whose checksum is 0 does not either, which does no harm. So nothing has to be durable
 * while pages come.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as z from "zod";
import { RAM_BLOCKS_MAX } from "../../stream/constants.ts";
import { damagedSnapshot } from "./damage.ts";
import { ARRIVAL_FILE, PACKAGE_FILE, sha256, SNAPSHOT_VERSION } from "./layout.ts";
import { blockShape, fileSchema } from "./manifest.ts";

/** What stands in the file of checksums for a page that is still to come. */
export const PAGE_TO_COME = 0;

export const ARRIVAL_FORMAT = "postcopy-arrival";

const arrivalSchema = z.strictObject({
  format: z.literal(ARRIVAL_FORMAT),
  version: z.literal(SNAPSHOT_VERSION),
  program: z.string(),
  /** The boot of the host in which it was taken over. */
  bootId: z.string(),
  machineType: z.string().max(255),
  uuid: z.guid().optional(),
  /** Section number of RAM in the source's stream. */
  ramSectionId: z.int().nonnegative(),
  /** The source is this program. */
  sourceIsOurs: z.boolean(),
  blocks: z.array(z.strictObject(blockShape)).min(1).max(RAM_BLOCKS_MAX),
  package: fileSchema(PACKAGE_FILE),
});

export type Arrival = z.infer<typeof arrivalSchema>;

/** What is to be resumed, and its device state. @throws PostcopyError DAMAGED_SNAPSHOT. */
export function readArrival(directory: string): { arrival: Arrival; package: Uint8Array } {
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
