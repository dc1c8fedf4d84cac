/** A kept guest as the source role sees it: it stands still, and is read from its files. */
import type { RamBlock } from "../../ram/block.ts";
import type { PageReader } from "../../ram/page-reader.ts";
import type { SourceGuest } from "../../source/guest.ts";
import type { OpenedSnapshot } from "./open.ts";
import { StoredPages } from "./stored-pages.ts";

export class SnapshotSourceGuest implements SourceGuest {
  readonly machineType: string;
  readonly blocks: readonly RamBlock[];
  readonly live = false;
  readonly #snapshot: OpenedSnapshot;

  constructor(snapshot: OpenedSnapshot) {
    this.machineType = snapshot.machineType;
    this.blocks = snapshot.blocks;
    this.#snapshot = snapshot;
  }

  openPages(): PageReader {
    return new StoredPages(this.#snapshot);
  }

  stop(): void {
    // It stands still already.
  }

  resume(): void {
    // Nothing runs here: the snapshot is as it was.
  }

  devicePackage(): Uint8Array {
    return this.#snapshot.package;
  }
}
