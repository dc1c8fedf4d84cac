/**
 * Named counters that threads share: numbers in a SharedArrayBuffer. A worker adds while it works,
 * main reads whenever it wants, and nobody sends a message.
 *
 * Each counter has exactly ONE writing thread (named beside it), so that a plain addition loses
 * nothing; threads of one kind have a set each, and sums over them are made by the reader. Aligned
 * 64-bit stores are not torn on x86-64 and arm64, and a reader that is one update late does no harm.
 * Counters lie a cache line apart: threads that count different things do not fight for one line.
 *
 * Pages are target pages (4 KiB) throughout, times are the program's clock in ns.
 */

/** Float64 elements in a cache line of 64 bytes. */
const CACHE_LINE_ELEMENTS = 8;

/** Index of a counter in the shared array; `set` only keeps the two roles' slots apart. */
export type Slot<Name extends string> = number & { readonly counter?: Name };

/** A list of counters, with a slot constant for each name. */
export interface CounterSet<Name extends string> {
  names: readonly Name[];
  slots: { readonly [Key in Name]: Slot<Key> };
  /** Shared memory for one set, all zeros. */
  create(): Counters<Name>;
  /** The same counters in another thread. */
  attach(shared: SharedArrayBuffer): Counters<Name>;
}

/** Counters over shared memory. `add`, `set` and `get` allocate nothing. */
export class Counters<Name extends string> {
  readonly shared: SharedArrayBuffer;
  readonly #values: Float64Array;

  constructor(shared: SharedArrayBuffer) {
    this.shared = shared;
    this.#values = new Float64Array(shared);
  }

  /** Adds to a counter; only its own thread may. */
  add(slot: Slot<Name>, amount: number): void {
    this.#values[slot] = (this.#values[slot] ?? 0) + amount;
  }

  /** Sets a gauge such as the phase; only its own thread may. */
  set(slot: Slot<Name>, value: number): void {
    this.#values[slot] = value;
  }

  /** What a counter stands at. */
  get(slot: Slot<Name>): number {
    return this.#values[slot] ?? 0;
  }
}

/** What stands in counters, or in several sets of them together. */
export interface CounterReader<Name extends string> {
  get(slot: Slot<Name>): number;
}

/** Reads sets that several threads write as if they were one: a gauge is set in one of them alone. */
export function sumOf<Name extends string>(
  sets: readonly CounterReader<Name>[],
): CounterReader<Name> {
  return { get: (slot) => sets.reduce((sum, set) => sum + set.get(slot), 0) };
}

/** Makes slot constants of a list of names. */
export function defineCounters<const Names extends readonly string[]>(
  names: Names,
): CounterSet<Names[number]> {
  type Name = Names[number];
  if (new Set(names).size !== names.length) throw new Error("two counters have one name");
  const entries = names.map((name, index) => [name, index * CACHE_LINE_ELEMENTS]);
  const bytes = names.length * CACHE_LINE_ELEMENTS * Float64Array.BYTES_PER_ELEMENT;
  return {
    names,
    slots: Object.freeze(Object.fromEntries(entries)) as { readonly [Key in Name]: Slot<Key> },
    create: () => new Counters<Name>(new SharedArrayBuffer(bytes)),
    attach: (shared) => {
      if (shared.byteLength !== bytes) throw new Error("these are not this set's counters");
      return new Counters<Name>(shared);
    },
  };
}

/** Phases of the source, in order; the counter `phase` holds the index. */
export const SOURCE_PHASES = [
  "setup",
  "precopy",
  "device",
  "postcopy",
  "paused",
  "recover",
  "completed",
  "failed",
  "cancelled",
] as const;
export type SourcePhase = (typeof SOURCE_PHASES)[number];

/** Phases of the destination, in order; the counter `phase` holds the index. */
export const DEST_PHASES = [
  "waiting",
  "precopy",
  "device",
  "postcopy",
  "paused",
  "drained",
  "completed",
  "failed",
  "cancelled",
] as const;
export type DestPhase = (typeof DEST_PHASES)[number];

/** What the source counts. */
export const SOURCE_COUNTERS = defineCounters([
  // Written by the migration thread; of the push also by the threads of further channels.
  "phase", // index in SOURCE_PHASES
  "round", // precopy round now running, from 1
  "totalPages", // pages of all RAM blocks
  "dirtyPages", // pages still to send in precopy: the rest of this round and what was dirtied
  "dirtyRate", // pages a second that the guest dirtied in the last round
  "bytesPrecopy", // on the wire, from the header to the switchover
  "bytesPackage", // discards and the package with the device state
  "bytesPostcopy", // the background push
  "pagesNormalPrecopy",
  "pagesZeroPrecopy",
  "pagesPushed",
  "pagesPushedZero",
  "pagesPacked", // of pagesPushed: those that went compressed
  "owedPages", // pages that the destination lacked at the switchover
  // Written by the return-path thread.
  "bytesRequested", // answers to requests, on whichever channel
  "pagesRequested",
  "pagesRequestedZero",
  "requestsReceived", // page request messages
  "requestsServed", // requests answered with at least one page
  "requestsDuplicate", // requests whose pages were all sent before
  "pagesRepeated", // pages that were sent once more, as they were under way among the push
] as const);

/** What the destination counts. */
export const DEST_COUNTERS = defineCounters([
  // Written by the incoming thread, and from LISTEN on by the listen thread that takes over, beside
  // which each thread of a further channel counts what that brings.
  "phase", // index in DEST_PHASES
  "totalPages",
  "bytesReceived", // on this channel
  "pagesPrecopy",
  "pagesPrecopyZero",
  "pagesPushed", // postcopy pages of this channel, pushed, or requested where they have none of their own
  "pagesPushedZero",
  "pagesDropped", // arrived for a page that the guest had discarded
  "placeExists", // EEXIST: the page was here already
  "placeRetries", // EAGAIN: the address space was changing
  "missingPages", // pages that lacked at LISTEN
  // Written by the multifd thread.
  "bytesMultifd",
  "pagesMultifd", // precopy pages on multifd channels
  "pagesMultifdZero",
  // Written by the fault thread.
  "bytesUrgent", // on the urgent channel
  "pagesUrgent",
  "pagesUrgentZero",
  "urgentDropped",
  "urgentExists",
  "urgentRetries",
  "faults", // page-fault events read from userfaultfd
  "faultsRemote", // faults that needed a request
  "pagesAwaited", // pages of those requests
  "faultsLocal", // faults on pages that had come meanwhile
  "removedPages", // pages that the guest discarded (UFFD_EVENT_REMOVE)
] as const);

/** Slots of the source's counters: `counters.add(SOURCE.pagesPushed, 1)`. */
export const SOURCE = SOURCE_COUNTERS.slots;
export type SourceCounters = ReturnType<typeof SOURCE_COUNTERS.create>;
export type SourceCounts = CounterReader<(typeof SOURCE_COUNTERS.names)[number]>;

/** Slots of the destination's counters. */
export const DEST = DEST_COUNTERS.slots;
export type DestCounters = ReturnType<typeof DEST_COUNTERS.create>;
export type DestCounts = CounterReader<(typeof DEST_COUNTERS.names)[number]>;
