/**
 * The source's urgent channel at the destination, on which requested pages come. It is found among
 * further connections, and read in the fault thread.
 */
import { POLL, closeDescriptor } from "../../syscalls/descriptor.ts";
import type { PollSet } from "../../syscalls/descriptor.ts";
import { ChannelError } from "../channel/channel.ts";
import type { Channel } from "../channel/channel.ts";
import type { RamBlock } from "../ram/block.ts";
import { DEST } from "../report/counters.ts";
import { StreamError } from "../util/errors.ts";
import { FurtherConnections } from "./further-connections.ts";
import type { FurtherOptions } from "./further-connections.ts";
import type { PageSink } from "./guest.ts";
import { isBound } from "./identity.ts";
import type { PlaceCounts } from "./placer.ts";
import { RamLoader } from "./ram-loader.ts";
import { WORD } from "./shared.ts";

/** Most reads of the urgent channel between two looks at the guest's faults. */
const READS_PER_TURN = 16;

/** What an urgent channel is made of. */
export interface UrgentOptions extends FurtherOptions {
  blocks: readonly RamBlock[];
  /** A reading channel and its sink over an urgent connection. */
  openUrgent: (fd: number) => UrgentEnd;
  /** Called whenever pages have been placed: by as many as a peer likes to send. */
  handed?: () => void;
}

/** This end of an urgent channel. */
export interface UrgentEnd {
  channel: Channel;
  sink: PageSink;
  /** What came of placing, for sinks that place. */
  counts?: PlaceCounts | undefined;
}

/**
 * In place of the sink where no page can be asked for: the guest is bound to no source yet, or the one
 * whose channel this is was turned away and another one began, which may have another guest.
 */
const REFUSING: PageSink = { pages: refuseEarly, zeros: refuseEarly };

function refuseEarly(): never {
  throw new ChannelError("EARLY_PAGE", "It brought a page that nobody had asked for");
}

interface Found extends UrgentEnd {
  loader: RamLoader;
}

export class UrgentChannel {
  readonly #options: UrgentOptions;
  readonly #connections: FurtherConnections;
  readonly #poll: PollSet;
  readonly #slot: number;
  #found: Found | undefined;

  constructor(options: UrgentOptions, poll: PollSet) {
    this.#options = options;
    this.#poll = poll;
    this.#slot = poll.add(-1, POLL.POLLIN);
    this.#connections = new FurtherConnections(options, poll, (fd) => this.#open(fd));
  }

  /** Whether it is there: requested pages come on it. */
  get isOpen(): boolean {
    return this.#found !== undefined;
  }

  /** Handles what the last wait of the poll set found; whether the urgent channel was part of it. */
  serve(): boolean {
    const found = this.#found;
    const came = found !== undefined && this.#poll.ready(this.#slot) !== 0;
    // Requested pages first: somebody waits for each of them.
    if (came) this.#read(found);
    this.#connections.serve();
    return came;
  }

  /** Closes every connection. */
  close(): void {
    this.#connections.close();
    if (this.#found !== undefined) this.#end(this.#found);
  }

  #open(fd: number): void {
    const end = this.#options.openUrgent(fd);
    const loader = new RamLoader(end.channel);
    loader.blocks = this.#options.blocks;
    loader.handed = this.#options.handed;
    loader.runs = Atomics.load(this.#options.shared.control, WORD.pageRuns) === 1;
    this.#found = { ...end, loader };
    this.#poll.set(this.#slot, fd, POLL.POLLIN);
  }

  /** Reads the urgent channel. That it broke says nothing new: the main channel will show why. */
  #read(found: Found): void {
    try {
      this.#load(found);
    } catch (error) {
      if (!(error instanceof ChannelError)) throw error;
      this.#options.warn(`The urgent channel was lost: ${error.message}`);
      this.#end(found);
    }
  }

  /** Places what has arrived on the urgent channel, though no more at once than READS_PER_TURN. */
  #load(found: Found): void {
    const { control } = this.#options.shared;
    for (let reads = 0; reads < READS_PER_TURN; reads++) {
      const got = found.channel.tryRead();
      if (got === 0) return;
      if (got < 0) {
        this.#end(found);
        return;
      }
      found.loader.sink = this.#mayPlace ? found.sink : REFUSING;
      const end = found.loader.load();
      this.#account(found, got);
      if (end === "memory size" || end === "multifd flush") {
        // What follows would be read as something else, or wait until the next bytes come.
        throw new StreamError("UNEXPECTED", `A record of ${end} came on the urgent channel`);
      }
      if (end === "end of section") {
        Atomics.store(control, WORD.urgentEnded, 1);
        Atomics.notify(control, WORD.urgentEnded);
        this.#end(found);
        return;
      }
    }
  }

  /** In this order: a source that is turned away loses its channel before the next one binds the guest. */
  get #mayPlace(): boolean {
    const { shared } = this.#options;
    return isBound(shared) && Atomics.load(shared.control, WORD.urgentChosen) === 1;
  }

  #account({ loader, counts }: Found, got: number): void {
    const { counters } = this.#options.shared;
    counters.add(DEST.bytesUrgent, got);
    counters.add(DEST.pagesUrgent, loader.normal);
    counters.add(DEST.pagesUrgentZero, loader.zero);
    loader.normal = 0;
    loader.zero = 0;
    if (counts === undefined) return;
    counters.add(DEST.urgentExists, counts.exists);
    counters.add(DEST.urgentRetries, counts.retries);
    counters.add(DEST.urgentDropped, counts.dropped);
    counts.exists = 0;
    counts.retries = 0;
    counts.dropped = 0;
  }

  #end(found: Found): void {
    this.#poll.set(this.#slot, -1, 0);
    this.#found = undefined;
    closeDescriptor(found.channel.fd);
  }
}
