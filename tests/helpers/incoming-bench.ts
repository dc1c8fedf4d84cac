/** The incoming thread's loader, in this thread, before a source that is made by hand (hand-made-stream.ts). */
import { expect } from "bun:test";
import { Channel } from "../../src/channel/channel.ts";
import type { DestEvent, IncomingContext } from "../../src/dest/context.ts";
import type { DestGuest } from "../../src/dest/guest.ts";
import { IncomingLoader } from "../../src/dest/incoming.ts";
import { createDestShared, DestShared } from "../../src/dest/shared.ts";
import { chosenValue, FEATURES_OURS, tokenValues } from "../../src/stream/hello.ts";
import { identityPings, newIdentity } from "../../src/stream/identity.ts";
import type { ReturnPathMessage } from "../../src/stream/return-path.ts";
import { StreamError } from "../../src/util/errors.ts";
import { writeBytes } from "../fixtures/descriptors.ts";
import { Descriptors } from "./descriptors.ts";
import {
  bytesOf,
  eof,
  opening,
  openReturnPath,
  ping,
  ramEnd,
  ramStart,
  zeroPages,
} from "./hand-made-stream.ts";
import type { Piece } from "./hand-made-stream.ts";

/** A guest that takes everything and runs nothing; what became of it. */
function takeAnyGuest(): { guest: DestGuest; life: string[] } {
  const life: string[] = [];
  const guest: DestGuest = {
    memory: "stored",
    devices: { kind: "modelled", load: () => undefined, complete: () => undefined },
    configure: () => undefined,
    prepareMemory: (setup) => setup.map((block, index) => ({ ...block, index, address: 0 })),
    storeSink: () => ({ pages: () => undefined, zeros: () => undefined }),
    sinkData: () => undefined,
    run: () => void life.push("runs"),
    finish: () => void life.push("is whole"),
  };
  return { guest, life };
}

export class IncomingBench implements Disposable {
  readonly shared = new DestShared(createDestShared());
  readonly events: DestEvent[] = [];
  readonly sent: ReturnPathMessage[] = [];
  readonly life: string[];
  readonly context: IncomingContext;
  readonly #descriptors = new Descriptors();
  readonly sourceFd: number;

  /** `broken` says which messages of the return path the link fails to carry. */
  constructor(broken: (message: ReturnPathMessage) => boolean = () => false) {
    const [fd, sourceFd] = this.#descriptors.pair();
    this.sourceFd = sourceFd;
    const stopFd = this.#descriptors.event();
    const { guest, life } = takeAnyGuest();
    this.life = life;
    this.context = {
      channel: new Channel({ fd, stopFd, peer: "the source", bufferBytes: 65_536 }),
      returnPath: {
        send: (message) => {
          if (broken(message)) throw new StreamError("BROKEN", "The link broke");
          this.sent.push(message);
        },
        addRequest: () => undefined,
        flushRequests: () => undefined,
      },
      guest,
      shared: this.shared,
      features: FEATURES_OURS,
      linkTimeoutMs: 5000,
      othersMayCome: false,
      multifd: undefined,
      lockMemory: false,
      announceMemory: () => undefined,
      emit: (event) => void this.events.push(event),
    };
  }

  /** What the source says, all at once. */
  feed(...pieces: readonly Piece[]): this {
    const bytes = bytesOf(...pieces);
    expect(writeBytes(this.sourceFd, bytes)).toBe(bytes.length);
    return this;
  }

  /** Closes the end that is under test. */
  closeOurs(): void {
    this.#descriptors.close(this.context.channel.fd);
  }

  /** Nothing more will come. */
  hangUp(): this {
    this.#descriptors.close(this.sourceFd);
    return this;
  }

  run() {
    return new IncomingLoader(this.context).run();
  }

  get warnings(): string[] {
    return this.events.flatMap((event) => (event.kind === "warning" ? [event.message] : []));
  }

  [Symbol.dispose](): void {
    this.#descriptors[Symbol.dispose]();
  }
}

/** Of the urgent channel that such a source chooses. */
export const TOKEN = 0xdead_beef;
/** Which guest such a source says that it has. */
export const IDENTITY = identityPings(newIdentity());
/** The pings of a source that has chosen all there is. */
export const CHOSEN: readonly Piece[] = [
  ...tokenValues(TOKEN),
  ...IDENTITY,
  chosenValue(FEATURES_OURS),
].map(ping);
/** How every stream begins here. */
export const START: readonly Piece[] = [opening(), openReturnPath];
/** All of memory, and the end of the stream. */
export const MEMORY: readonly Piece[] = [ramStart(), ramEnd(zeroPages()), eof];
