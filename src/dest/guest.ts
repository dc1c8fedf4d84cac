/**
 * What the dest role needs of the guest that arrives. Guests implement it; see src/guests/. All of
 * it is called in the incoming thread, apart from the page sinks, of which each thread makes its
 * own from plain data.
 */
import type { AddressMap } from "../ram/address-map.ts";
import type { RamBlock } from "../ram/block.ts";
import type { MappedBytes } from "../ram/shared-bytes.ts";
import type { StreamConfiguration } from "../stream/header.ts";
import type { RamSetupBlock } from "../stream/ram-setup.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import type { StreamReader } from "../stream/reader.ts";
import type { DeviceSection } from "../stream/section.ts";
import type { PageState, PageStateData } from "./shared.ts";

/**
 * Where pages go. Runs are whole target pages, consecutive in the block; their data lie one behind
 * the other in the receive buffer that the sink was made for.
 */
export interface PageSink {
  /** Pages [offset, offset + count * 4096) of a block, with data from `at` of the buffer on. */
  pages(block: RamBlock, offset: number, at: number, count: number): void;
  /**
   * The same, where the data of each page lie at a place of their own: the first `count` of `places`.
   * A sink that has no use for that is handed pages that were moved together.
   */
  scattered?(block: RamBlock, offset: number, places: Int32Array, count: number): void;
  /** The same range holds only zeros. */
  zeros(block: RamBlock, offset: number, count: number): void;
  /**
   * The page at `offset` as it is now, into `page`: what XBZRLE is decoded over. A sink that places
   * pages once and for all has none.
   */
  readPage?(block: RamBlock, offset: number, page: Uint8Array): void;
  /** Forgets a part of a host page that has come: over another link it comes again as a whole. */
  dropPart?(): void;
}

/** How a guest's device state is taken over. */
export type DeviceLoading =
  /**
   * Section by section: this program knows the devices. What comes while the guest still runs at the
   * source may change; `complete` is told when all is here, and throws where the guest cannot run.
   */
  | {
      kind: "modelled";
      load: (section: DeviceSection, reader: StreamReader) => void;
      complete: () => void;
    }
  /**
   * As a whole: the package is kept, and what is in it stays opaque. Of a guest that completed in
   * precopy it was made here, and the description of its devices may come with it.
   */
  | { kind: "opaque"; keep: (bytes: Uint8Array, vmDescription?: string) => void };

/** The receive buffer of a channel, for which a sink is made (Channel's `buffer`). */
export interface ReceiveBuffer {
  bytes: Uint8Array;
  /** Where `bytes` lie in memory. */
  address: number;
}

export interface DestGuest {
  /**
   * "userfault": the guest will run here, so its memory is in this process and what is missing is
   * fetched on a fault. "foreign": the same, but it runs in a VMM already that has handed its memory
   * over: what is placed there once cannot be taken back. "stored": it is kept, nothing runs,
   * nothing faults.
   */
  readonly memory: "userfault" | "foreign" | "stored";
  /** What of FEATURE (stream/hello.ts) it needs of its source; nothing if absent. */
  readonly needs?: number;
  readonly devices: DeviceLoading;
  /** The configuration section. @throws StreamError when this is not the guest meant. */
  configure(configuration: StreamConfiguration | undefined): void;
  /** The list of RAM blocks arrived: makes room for them. `pageSizeSummary` is ADVISE's. */
  prepareMemory(setup: readonly RamSetupBlock[], advice: PageSizes | undefined): RamBlock[];
  /** For "foreign", once it is prepared: the memory of the VMM. */
  foreign?(): ForeignMemory;
  /**
   * For "stored": the bytes [start, start + length) of a block will come in postcopy, when there is
   * no way back. @throws PostcopyError when there will be no room for them.
   */
  reserve?(block: RamBlock, start: number, length: number): void;
  /**
   * For what outlives this process: the guest is about to be taken over, and `pages` says what is here
   * of it. Another process can go on from what this one leaves (`resume`). @throws PostcopyError.
   */
  takeOver?(pages: PageState, facts: StreamFacts): void;
  /** For the same, instead of all before: what an earlier process left. @throws PostcopyError. */
  resume?(): ArrivedPart;
  /** For "stored": takes pages of every phase, through the receive buffer given. */
  storeSink?(pages: PageState, buffer: ReceiveBuffer): PageSink;
  /** For what outlives this process: which guest its pages are of, as far as another process knew. */
  knownIdentity?(): GuestIdentity | undefined;
  /**
   * For the same: its pages are this guest's, or nobody says whose. Called before any is placed, again
   * where it is said later.
   */
  bindIdentity?(identity: GuestIdentity | undefined): void;
  /** Plain data from which other threads make their own sinks. */
  sinkData(): unknown;
  /** RUN: the vCPUs start (or nothing, for a guest that is kept). */
  run(): void;
  /**
   * Every page is in place. What is kept is made durable before the source is told; `commit` is
   * called when all that is left is to say that it is whole, and throws if the guest was given back
   * to the source meanwhile.
   */
  finish(commit: () => void): void;
}

/** Memory of another process, which has registered it with a userfaultfd of its own. */
export interface ForeignMemory {
  userfaultFd: number;
  map: AddressMap;
  /** Where its state outlives this process; undefined where it need not. */
  kept: KeptPages | undefined;
  /** What people should know of how the source's memory fits. */
  notice?: string | undefined;
}

/** State of a VMM's memory that outlives this process. */
export interface KeptPages {
  /** The AddressMap. */
  map: MappedBytes;
  /** Per block, as of PageStateData. */
  received: MappedBytes[];
  removed: MappedBytes[];
  /** The buffer that events are read into (EVENT_BUFFER_BYTES). */
  eventsAt: number;
  /** Another process was at it before. */
  again: boolean;
}

/** What has to be known of a stream in order to go on with it. */
export interface StreamFacts {
  /** Section number of RAM. */
  ramSectionId: number;
  /** The source is this program. */
  sourceIsOurs: boolean;
  /** Which guest it has sent, if it has told. */
  identity?: GuestIdentity | undefined;
}

/** A guest of which an earlier process took over the device state and some pages. */
export interface ArrivedPart extends StreamFacts {
  blocks: RamBlock[];
  /** What is known of its pages: at least which are here. */
  pages: Pick<PageStateData, "received"> & Partial<PageStateData>;
  /** This host has not been restarted since. */
  sameBoot: boolean;
}

/** What ADVISE said about page sizes. */
export interface PageSizes {
  pageSizeSummary: number;
  targetPageSize: number;
}
