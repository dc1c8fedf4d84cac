/**
 * Firecracker's handover (`mem_backend` of type `Uffd`): a JSON list of the guest's regions in one
 * message, with the userfaultfd beside it. Its three generations differ in how they tell the page
 * size: not at all (1.1 to 1.6), as `page_size_kib`, whose value is in bytes in spite of its name
 * (1.7 on), and as `page_size` (1.12 on). More keys may come, and say nothing here.
 */
import * as z from "zod";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import { checkRegions, HandoverError } from "./handover.ts";
import type { Handover, HandoverFormat, Region } from "./handover.ts";

const bytes = z.int().nonnegative();

const mappingSchema = z.looseObject({
  base_host_virt_addr: bytes,
  size: bytes,
  offset: bytes,
  page_size: bytes.optional(),
  page_size_kib: bytes.optional(),
});

export const FIRECRACKER: HandoverFormat = {
  name: "Firecracker",
  parse(text: string): Handover | undefined {
    const trimmed = text.trim();
    if (trimmed.length > 0 && !trimmed.startsWith("[")) {
      throw new HandoverError("BAD_HANDOVER", "The VMM's message is no list of regions", {
        hint: 'a JSON list is expected: [{"base_host_virt_addr": …, "size": …, "offset": …}]',
      });
    }
    const list = parseWhole(trimmed);
    return list === undefined ? undefined : { regions: checkRegions(regionsOf(list)) };
  },
};

/** The value of a text that is JSON as a whole; undefined of one that may only be its beginning. */
function parseWhole(text: string): unknown {
  // Most pieces end in the middle: they are not tried, as each try reads all of the text.
  if (!text.endsWith("]")) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function regionsOf(list: unknown): Region[] {
  const parsed = z.array(mappingSchema).safeParse(list);
  if (!parsed.success) {
    const problem = z.prettifyError(parsed.error);
    throw new HandoverError("BAD_HANDOVER", `The VMM's list of regions is not right: ${problem}`);
  }
  return parsed.data.map((mapping) => {
    return {
      address: mapping.base_host_virt_addr,
      length: mapping.size,
      offset: mapping.offset,
      pageSize: mapping.page_size ?? mapping.page_size_kib ?? TARGET_PAGE_SIZE,
    };
  });
}
