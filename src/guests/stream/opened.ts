/** A saved stream that can be served. Plain data: it crosses to workers. */
import type { RamBlock } from "../../ram/block.ts";
import type { FileIdentity } from "../stored/identity.ts";
import type { GuestInFiles } from "../stored/source-guest.ts";

export interface OpenedStream extends GuestInFiles {
  path: string;
  blocks: RamBlock[];
  /** Descriptor of the file; open as long as the process lives. */
  descriptor: number;
  /** Descriptor of the file with the pages that had to be decoded; -1 where there are none. */
  sideDescriptor: number;
  /** Where each target page lies, by block: f64, see where.ts. */
  where: SharedArrayBuffer[];
  /** Checksums of all target pages, by block; undefined where none were made (mapped-ram). */
  sums: SharedArrayBuffer[] | undefined;
  identity: FileIdentity;
}
