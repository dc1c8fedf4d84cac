/** What the source role needs of the guest that it sends. Guests implement it; see src/guests/. */
import type { RamBlock } from "../ram/block.ts";
import type { PageReader } from "../ram/page-reader.ts";

export interface SourceGuest {
  /** Machine type of the configuration section: what the destination must be, too. */
  readonly machineType: string;
  /** Its identity, 16 bytes: a destination that has another one refuses it. */
  readonly uuid?: Uint8Array | undefined;
  /** RAM blocks in the order of the stream; mapped in this process if the guest is live. */
  readonly blocks: readonly RamBlock[];
  /**
   * Whether vCPUs write to the memory while it is sent. A guest that stands still (a snapshot) has
   * no dirty pages and needs no precopy round.
   */
  readonly live: boolean;
  /** Who receives it, for errors, where that is no QEMU; undefined: a QEMU may. */
  readonly receiver?: string | undefined;
  /** What its pages are read with. Each thread opens its own. */
  openPages(): PageReader;
  /** Stops the vCPUs. When it returns none of them runs and the memory stands still. */
  stop(): void;
  /** Lets the vCPUs run on: the migration failed before the destination could run the guest. */
  resume(): void;
  /**
   * Device state as FULL sections with their footers, while the guest runs. What is written here need
   * not be in `devicePackage`, which has what has changed since; it is called as often as it pays.
   */
  sectionsAhead?(): Uint8Array;
  /**
   * The device state as it goes into the stream: the inner bytes of the PACKAGED command, from
   * LISTEN to RUN. The guest is stopped.
   */
  devicePackage(): Uint8Array;
  /**
   * Target pages, counted over all blocks, that the device state points at: who loads it touches them,
   * and the guest runs no sooner than they are there.
   */
  devicePages?(): Uint32Array;
  /**
   * The device state as FULL sections with their footers, for a migration that completes in
   * precopy. A guest whose package is opaque lacks it, and is always sent by postcopy.
   */
  deviceSections?(): Uint8Array;
}
