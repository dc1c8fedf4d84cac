/** The texts of a kept state as they are read back: nothing in them is taken on trust. */
import * as z from "zod";
import type { RamBlock } from "../../ram/block.ts";
import { checkTables } from "../../ram/tables.ts";
import { RAM_BLOCKS_MAX, TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { checkRegions } from "./handover.ts";
import type { Region } from "./handover.ts";

/** Of the whole layout: another one can be read by no other version. */
export const KEPT_STATE_VERSION = 3;

/** Bits of a page that are kept, and when it was asked for. */
const BYTES_A_PAGE = 5;

const bytes = z.int().nonnegative();
const vmmSchema = z.strictObject({
  pid: z.int().nonnegative(),
  regions: z.array(
    z.strictObject({ address: bytes, length: bytes, offset: bytes, pageSize: bytes }),
  ),
});
const blockSchema = z.strictObject({
  name: z.string().min(1).max(255),
  length: z.int().positive().multipleOf(TARGET_PAGE_SIZE),
  pageSize: z.int().positive().multipleOf(TARGET_PAGE_SIZE),
});
const blocksSchema = z.array(blockSchema).min(1).max(RAM_BLOCKS_MAX);

/** A RAM block as it is kept. */
export type KeptBlock = z.infer<typeof blockSchema>;
/** Makes the error of a text that is wrong. */
type Damaged = (what: string) => Error;

function parse<Value>(schema: z.ZodType<Value>, text: string, damaged: Damaged): Value {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw damaged("a text in it is not JSON");
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  throw damaged(z.prettifyError(parsed.error));
}

/** The VMM's process and its regions. @throws what `damaged` makes; HandoverError. */
export function parseVmm(text: string, damaged: Damaged): { pid: number; regions: Region[] } {
  const { pid, regions } = parse(vmmSchema, text, damaged);
  return { pid, regions: checkRegions(regions) };
}

/** The RAM blocks. @throws what `damaged` makes; HostError NO_MEMORY. */
export function parseBlocks(text: string, damaged: Damaged): RamBlock[] {
  const blocks = parse(blocksSchema, text, damaged);
  checkTables(blocks, BYTES_A_PAGE);
  return blocks.map((block, index) => ({ ...block, index, address: 0 }));
}
