/**
 * A destination that keeps what a QEMU sends on each connection and says just enough for it to go
 * on: it answers PINGs, asks for some pages after the switch, and says that all is well when the
 * stream reads whole. No guest ever runs there.
 */
import { createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";

import {
  RECEIVED_BITMAP_END_HIGH,
  RECEIVED_BITMAP_END_LOW,
  STREAM_MAGIC,
} from "../../src/stream/constants.ts";
import { writeReturnPathMessage } from "../../src/stream/return-path.ts";
import type { ReturnPathMessage } from "../../src/stream/return-path.ts";
import { StreamWriter } from "../../src/stream/writer.ts";
import { isWholeStream, readModel } from "./model.ts";
import type { ModelBlock } from "./model-memory.ts";

const PAGE = 4096;
const OPEN_RETURN_PATH = Buffer.from([8, 0, 1, 0, 0]);
const PING = Buffer.from([8, 0, 2, 0, 4]);
const RECV_BITMAP = Buffer.from([8, 0, 10]);
const RESUME = Buffer.from([8, 0, 9, 0, 0]);
const PACKAGED = Buffer.from([8, 0, 7, 0, 4]);
/** How often it looks whether a stream is whole. */
const LOOK_MS = 10;

/** One connection: what came on it, and up to where it was looked at. */
interface Arrival {
  socket: Socket;
  bytes: Buffer;
  pings: number;
  asked: boolean;
  done: boolean;
  /** All that was sent has been taken. What the socket says of itself may be ahead of that. */
  ended: boolean;
}

export interface SinkOptions {
  /** The memory of the guest, whose pages are asked for once the package has come. */
  ask?: readonly ModelBlock[];
}

export class SinkDestination implements AsyncDisposable {
  readonly uri: string;
  readonly arrivals: Arrival[] = [];
  readonly #server: Server;
  readonly #options: SinkOptions;
  readonly #timer: ReturnType<typeof setInterval>;

  private constructor(server: Server, options: SinkOptions) {
    this.#server = server;
    this.#options = options;
    this.uri = `tcp:127.0.0.1:${(server.address() as AddressInfo).port}`;
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    server.on("connection", (socket) => this.#take(socket));
  }

  static async start(options: SinkOptions = {}): Promise<SinkDestination> {
    const server = createServer({ allowHalfOpen: true });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", resolve);
    await promise;
    return new SinkDestination(server, options);
  }

  /** What came on the main connections (a recovery has one of its own), in their order. */
  get main(): Uint8Array[] {
    return this.arrivals.filter(isMain).map(({ bytes }) => new Uint8Array(bytes));
  }

  /** What came on all others. */
  get others(): Uint8Array[] {
    return this.arrivals
      .filter((each) => !isMain(each) && each.bytes.length > 0)
      .map(({ bytes }) => new Uint8Array(bytes));
  }

  /** Breaks all connections off, as a network does. */
  cut(): void {
    for (const arrival of this.arrivals) {
      arrival.done = true;
      arrival.socket.resetAndDestroy();
    }
  }

  #take(socket: Socket): void {
    const bytes = Buffer.alloc(0);
    const arrival: Arrival = { socket, bytes, pings: 0, asked: false, done: false, ended: false };
    this.arrivals.push(arrival);
    socket.on("data", (part: Buffer) => {
      arrival.bytes = Buffer.concat([arrival.bytes, part]);
    });
    // The other end may go as it likes.
    socket.on("error", () => {});
    socket.on("end", () => {
      arrival.ended = true;
      socket.end();
    });
    socket.on("close", () => (arrival.ended = true));
  }

  #look(): void {
    for (const arrival of this.arrivals) if (isMain(arrival)) this.#answer(arrival);
  }

  #answer(arrival: Arrival): void {
    if (arrival.done) return;
    const { bytes } = arrival;
    for (let at = arrival.pings; ;) {
      at = bytes.indexOf(PING, at);
      if (at < 0 || at + 9 > bytes.length) break;
      say(arrival, { kind: "pong", value: bytes.readUInt32BE(at + 5) });
      arrival.pings = at + 9;
      at += 9;
    }
    const packaged = bytes.includes(PACKAGED) || bytes.includes(RESUME);
    if (packaged && !arrival.asked) this.#ask(arrival);
    if (isRecovery(arrival)) this.#recover(arrival);
    if (!isWhole(arrival)) return;
    arrival.done = true;
    // Who opened no way back reads none of it, and would reset the connection, with all that is under way.
    if (isRecovery(arrival) || bytes.includes(OPEN_RETURN_PATH)) {
      say(arrival, { kind: "shut", status: 0 });
    }
  }

  #ask(arrival: Arrival): void {
    arrival.asked = true;
    for (const { name, pages } of this.#options.ask ?? []) {
      for (const page of [...pages.keys()].slice(0, 4)) {
        say(arrival, { kind: "pageRequest", block: name, start: page * PAGE, length: PAGE });
      }
    }
  }

  /** Says of every block that half of it is here. */
  #recover(arrival: Arrival): void {
    const { bytes } = arrival;
    if (arrival.pings === 0) {
      const first = this.arrivals.find(isMain)?.bytes ?? Buffer.alloc(0);
      const blocks = blocksOf(first);
      for (let at = 0; bytes.subarray(at, at + 3).equals(RECV_BITMAP);) {
        const length = bytes[at + 5] ?? 0;
        const name = bytes.subarray(at + 6, at + 6 + length).toString("latin1");
        const block = blocks.find((each) => each.name === name);
        if (block === undefined) return;
        sayBitmap(arrival, name, block.length / PAGE);
        at += 6 + length;
        arrival.pings = at;
      }
    }
    if (bytes.includes(RESUME) && arrival.asked) {
      arrival.asked = false;
      say(arrival, { kind: "resumeAck" });
      arrival.pings = bytes.length;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#server.close();
    for (const { socket } of this.arrivals) socket.destroy();
    return Promise.resolve();
  }
}

function isRecovery({ bytes }: Arrival): boolean {
  return bytes.length >= 3 && bytes.subarray(0, 3).equals(RECV_BITMAP);
}

function isMain(arrival: Arrival): boolean {
  const { bytes } = arrival;
  return bytes.length >= 4 && (bytes.readUInt32BE(0) === STREAM_MAGIC || isRecovery(arrival));
}

/** Whether it ends as a stream does; of a recovery, which does not read by itself, EOF is looked for. */
function isWhole(arrival: Arrival): boolean {
  const { bytes } = arrival;
  if (isRecovery(arrival)) return bytes.at(-1) === 0 && bytes.at(-6) === 0x7e;
  return isWholeStream(bytes);
}

function blocksOf(bytes: Buffer): readonly ModelBlock[] {
  const blocks: ModelBlock[] = [];
  try {
    readModel(bytes, { fields: [], spans: [] }, blocks);
  } catch {
    // It was cut off; the list is there.
  }
  return blocks;
}

function say({ socket }: Arrival, message: ReturnPathMessage): void {
  const writer = new StreamWriter();
  writeReturnPathMessage(writer, message);
  socket.write(writer.bytes);
}

function sayBitmap(arrival: Arrival, block: string, pages: number): void {
  say(arrival, { kind: "receivedBitmap", block });
  const bytes = Math.ceil(pages / 64) * 8;
  const writer = new StreamWriter();
  writer.u64(bytes).raw(new Uint8Array(bytes).fill(0x55));
  writer.u32(RECEIVED_BITMAP_END_HIGH).u32(RECEIVED_BITMAP_END_LOW);
  arrival.socket.write(writer.bytes);
}
