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
import type { GuestIdentity } from "../../stream/identity.ts";
import type { ManifestFile } from "./layout.ts";

/** What stands in the file of checksums for a page that is still to come. */
export const PAGE_TO_COME = 0;

export const ARRIVAL_FORMAT = "postcopy-arrival";

/** What arrival.json says. */
export interface Arrival {
  format: typeof ARRIVAL_FORMAT;
  version: number;
  program: string;
  /** The boot of the host in which it was taken over. */
  bootId: string;
  /** As in the manifest. */
  machineType: string;
  uuid?: string | undefined;
  /** Section number of RAM in the source's stream. */
  ramSectionId: number;
  /** The source is this program. */
  sourceIsOurs: boolean;
  /** Which guest it has told that it sends. */
  identity?: GuestIdentity | undefined;
  blocks: { name: string; length: number; pageSize: number }[];
  package: ManifestFile;
}

/** A guest that is to be resumed: what is said of it, and its device state. Plain data. */
export interface TakenOver {
  arrival: Arrival;
  package: Uint8Array;
}
