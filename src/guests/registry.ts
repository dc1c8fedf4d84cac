/** Guests by kind: from the plain data that crosses to a worker to the object that a role uses. */
import type { DestGuest, PageSink, ReceiveBuffer } from "../dest/guest.ts";
import type { PageState } from "../dest/shared.ts";
import type { RamBlock } from "../ram/block.ts";
import type { SourceGuest } from "../source/guest.ts";
import type { OpenedMemory } from "./firecracker/open.ts";
import { MemoryTable } from "./firecracker/page-table.ts";
import type { TakenOver } from "./snapshot/arrival.ts";
import { SnapshotDestGuest } from "./snapshot/dest-guest.ts";
import type { KeptSnapshot } from "./snapshot/dest-guest.ts";
import type { OpenedSnapshot } from "./snapshot/open.ts";
import { SnapshotTable } from "./snapshot/page-table.ts";
import { StoreSink } from "./snapshot/store-sink.ts";
import type { StoreData } from "./snapshot/store-sink.ts";
import { StoredSourceGuest } from "./stored/source-guest.ts";
import type { OpenedStream } from "./stream/opened.ts";
import { StreamTable } from "./stream/page-table.ts";
import { StressDestGuest } from "./stress/dest-guest.ts";
import type { StressNews } from "./stress/dest-guest.ts";
import type { StressParameters } from "./stress/parameters.ts";
import type { StressSetup } from "./stress/setup.ts";
import { StressSourceGuest } from "./stress/source-guest.ts";
import { UffdDestGuest } from "./uffd/dest-guest.ts";
import type { TakenHandover } from "./uffd/receive.ts";

/** A guest at the source. */
export type SourceGuestData =
  | { kind: "stress"; setup: StressSetup; blocks: readonly RamBlock[] }
  | { kind: "snapshot"; snapshot: OpenedSnapshot }
  | { kind: "stream"; stream: OpenedStream }
  | { kind: "firecracker"; memory: OpenedMemory };

export function openSourceGuest(data: SourceGuestData): SourceGuest {
  switch (data.kind) {
    case "stress":
      return new StressSourceGuest(data.setup, data.blocks);
    case "snapshot":
      return new StoredSourceGuest(data.snapshot, new SnapshotTable(data.snapshot));
    case "stream":
      return new StoredSourceGuest(data.stream, new StreamTable(data.stream));
    case "firecracker":
      return new StoredSourceGuest(data.memory, new MemoryTable(data.memory));
  }
}

/** The RAM blocks of a guest at the source. */
export function sourceBlocks(data: SourceGuestData): readonly RamBlock[] {
  switch (data.kind) {
    case "stress":
      return data.blocks;
    case "snapshot":
      return data.snapshot.blocks;
    case "stream":
      return data.stream.blocks;
    case "firecracker":
      return data.memory.blocks;
  }
}

/** A guest at the destination. */
export type DestGuestData =
  | { kind: "stress"; expected: StressParameters | undefined }
  /** `takenOver`: by another process, and the rest is to come. */
  | { kind: "snapshot"; directory: string; takenOver: TakenOver | undefined }
  /** The memory of a VMM, as it was handed over. */
  | {
      kind: "uffd";
      handover: TakenHandover;
      /** Where its state outlives this process, and whether another one passed LISTEN with it. */
      keptFd: number | undefined;
      takenOver: boolean;
    };

/** Whether it is a guest that another process has taken over. */
export function isResumed(data: DestGuestData): boolean {
  if (data.kind === "uffd") return data.takenOver;
  return data.kind === "snapshot" && data.takenOver !== undefined;
}

/** What a guest tells main while it arrives. */
export type ArrivalNews = StressNews | { kind: "snapshot kept"; snapshot: KeptSnapshot };

export function openDestGuest(data: DestGuestData, tell: (news: ArrivalNews) => void): DestGuest {
  switch (data.kind) {
    case "stress":
      return new StressDestGuest(data.expected, tell);
    case "snapshot":
      return new SnapshotDestGuest(
        data.directory,
        (snapshot) => tell({ kind: "snapshot kept", snapshot }),
        data.takenOver,
      );
    case "uffd":
      return new UffdDestGuest(data.handover, data.keptFd);
  }
}

/**
 * The sink of a guest that is stored, for other threads than the one that loads it; undefined for a
 * guest whose memory is placed through a userfaultfd. `control` is given from LISTEN on.
 */
export function openStoreSink(
  data: DestGuestData,
  sinkData: unknown,
  pages: PageState,
  buffer: ReceiveBuffer,
  control?: Int32Array<SharedArrayBuffer>,
): PageSink | undefined {
  if (data.kind !== "snapshot") return undefined;
  return new StoreSink(sinkData as StoreData, pages, buffer, control);
}
