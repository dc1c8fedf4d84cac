/** The memory of a stress guest in this process. */
import { SyscallError } from "../../../syscalls/error.ts";
import { mapAnonymous, Mapping } from "../../../syscalls/memory.ts";
import type { RamBlock } from "../../ram/block.ts";
import { availableBytes } from "../../ram/tables.ts";
import { HostError } from "../../util/errors.ts";
import { formatBytes } from "../../util/units.ts";
import type { MemoryRange } from "./page-map.ts";
import { PAGE_SIZE_SMALL } from "./parameters.ts";

/** What a block is made from: a line of MEM_SIZE, or of `blockLayout`. */
export interface BlockPlan {
  name: string;
  length: number;
  pageSize: number;
}

/**
 * Maps the blocks of a guest, for `unmapBlocks` to give back.
 * @throws HostError NO_MEMORY when the host has not so much left, of this page size.
 */
export function mapBlocks(plans: readonly BlockPlan[]): RamBlock[] {
  const small = plans.filter((plan) => plan.pageSize === PAGE_SIZE_SMALL);
  checkAvailable(small.reduce((sum, plan) => sum + plan.length, 0));
  return plans.map(({ name, length, pageSize }, index) => {
    try {
      const { address } = mapAnonymous(length, { pageSize });
      return { index, name, length, pageSize, address };
    } catch (cause) {
      if (!(cause instanceof SyscallError) || pageSize === PAGE_SIZE_SMALL) throw cause;
      const pages = length / pageSize;
      throw new HostError("NO_MEMORY", `The host has no ${pages} free huge pages`, {
        cause,
        hint: `reserve them: sysctl vm.nr_hugepages=${pages} (as root)`,
      });
    }
  });
}

/** Gives back the memory of a guest that runs here no more, and that nobody looks at any more. */
export function unmapBlocks(blocks: readonly MemoryRange[]): void {
  for (const { address, length } of blocks) new Mapping(address, length)[Symbol.dispose]();
}

/** Memory is promised without being there, and then the kernel kills somebody: so ask first. */
function checkAvailable(wanted: number): void {
  const available = availableBytes();
  if (wanted <= available) return;
  throw new HostError(
    "NO_MEMORY",
    `The guest needs ${formatBytes(wanted)} of memory and the host has ${formatBytes(available)}`,
    { hint: "move a smaller guest, or free memory on this host" },
  );
}
