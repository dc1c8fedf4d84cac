/** A guest that lies in files as the source role sees it: it stands still, and is read from there. */
import type { RamBlock } from "../../ram/block.ts";
import type { PageReader } from "../../ram/page-reader.ts";
import type { SourceGuest } from "../../source/guest.ts";
import { uuidBytes } from "../../stream/uuid.ts";
import { receiverOf } from "./memory-only.ts";
import { StoredPages } from "./pages.ts";
import type { PageTable } from "./pages.ts";

/** What of a stored guest is the same for all kinds of files. */
export interface GuestInFiles {
  machineType: string;
  /** The guest's `-uuid`, where it was saved with `validate-uuid`. */
  uuid: string | undefined;
  /** They lie in files, so their addresses are 0. */
  blocks: readonly RamBlock[];
  /** LISTEN, devices, PINGs, RUN. */
  package: Uint8Array;
}

export class StoredSourceGuest implements SourceGuest {
  readonly machineType: string;
  readonly uuid: Uint8Array | undefined;
  readonly blocks: readonly RamBlock[];
  readonly live = false;
  readonly receiver: string | undefined;
  readonly #package: Uint8Array;
  readonly #table: PageTable;

  constructor(guest: GuestInFiles, table: PageTable) {
    this.machineType = guest.machineType;
    this.uuid = guest.uuid === undefined ? undefined : uuidBytes(guest.uuid);
    this.blocks = guest.blocks;
    this.receiver = receiverOf(guest.machineType);
    this.#package = guest.package;
    this.#table = table;
  }

  openPages(): PageReader {
    return new StoredPages(this.#table);
  }

  stop(): void {
    // It stands still already.
  }

  resume(): void {
    // Nothing runs here: the files are as they were.
  }

  devicePackage(): Uint8Array {
    return this.#package;
  }
}
