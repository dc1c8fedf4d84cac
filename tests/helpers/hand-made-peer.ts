/**
 * A peer over a plain socket that does exactly what a test tells it to: a source that sends bytes
 * and reads the return path, or a destination that reads and answers.
 */
import { connect, createServer } from "node:net";
import type { Server, Socket } from "node:net";

import { parsePeer } from "../../src/channel/address.ts";
import { StreamReader } from "../../src/stream/reader.ts";
import {
  createReturnPathRecord,
  decodeReturnPath,
  readReturnPathMessage,
  writeReturnPathMessage,
} from "../../src/stream/return-path.ts";
import type { ReturnPathMessage } from "../../src/stream/return-path.ts";
import { waitUntil, withDeadline } from "./deadline.ts";
import { bytesOf } from "./hand-made-stream.ts";
import type { Piece } from "./hand-made-stream.ts";

/** What a test needs of node's two ways to name an address. */
function socketOptions(peer: string): { path: string } | { host: string; port: number } {
  const parsed = parsePeer(peer);
  if (parsed.kind === "unix") return { path: parsed.path };
  if (parsed.kind === "tcp") return { host: parsed.host, port: parsed.port };
  throw new Error(`a hand-made peer cannot reach ${peer}`);
}

/** One end of a connection; what arrives is kept. */
export class HandMadePeer implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #arrived: Uint8Array[] = [];
  readonly #closed = Promise.withResolvers<void>();
  #ended = false;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (bytes: Uint8Array) => this.#arrived.push(bytes));
    socket.on("end", () => (this.#ended = true));
    // A reset is one of the ways in which the program under test may hang up.
    socket.on("error", () => (this.#ended = true));
    socket.on("close", () => this.#closed.resolve());
  }

  /** A source: connects to a destination that listens. */
  static async connect(peer: string): Promise<HandMadePeer> {
    const socket = connect({ ...socketOptions(peer), allowHalfOpen: true });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    socket.once("connect", resolve);
    socket.once("error", reject);
    await withDeadline(promise, `a connection to ${peer}`);
    return new HandMadePeer(socket);
  }

  /** All that arrived so far. */
  get received(): Uint8Array {
    return Buffer.concat(this.#arrived);
  }

  /** Whether the other end has hung up. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Writes pieces of a stream, or bytes. */
  send(...pieces: readonly (Piece | Uint8Array | string)[]): void {
    for (const piece of pieces) {
      this.#socket.write(typeof piece === "function" ? bytesOf(piece) : piece);
    }
  }

  /** Writes a message of the return path. */
  answer(message: ReturnPathMessage): void {
    this.send((writer) => writeReturnPathMessage(writer, message));
  }

  /** The whole messages of the return path that arrived. */
  get messages(): ReturnPathMessage[] {
    const bytes = this.received;
    const reader = new StreamReader(bytes, bytes.length);
    const messages: ReturnPathMessage[] = [];
    const record = createReturnPathRecord();
    while (decodeReturnPath(bytes, reader.view, reader.pos, reader.end, record) > 0) {
      messages.push(readReturnPathMessage(reader));
    }
    return messages;
  }

  /** Waits for a message of the return path. */
  async message(matches: (message: ReturnPathMessage) => boolean): Promise<ReturnPathMessage> {
    return await waitUntil(() => this.messages.find(matches), "a message of the return path");
  }

  /** Says that nothing more will come, and goes on reading. */
  endWriting(): void {
    this.#socket.end();
  }

  /** Waits until the other end has hung up. */
  async otherEnd(): Promise<void> {
    await waitUntil(() => this.#ended, "the other end to hang up");
  }

  /** Breaks the connection off with a reset, as a crashed host or a firewall does. */
  reset(): void {
    this.#socket.resetAndDestroy();
  }

  /** Hangs up at once. */
  close(): void {
    this.#socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    await this.#closed.promise;
  }
}

/** A destination that a source under test connects to. */
export class HandMadeDestination implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets: Socket[] = [];
  readonly #peers: HandMadePeer[] = [];
  /** The address as a PEER word. */
  readonly peer: string;

  private constructor(server: Server, peer: string) {
    this.#server = server;
    this.peer = peer;
    server.on("connection", (socket) => {
      this.#sockets.push(socket);
      this.#peers.push(new HandMadePeer(socket));
    });
  }

  /** Listens on a free port of the loopback, or on the path of a unix socket. */
  static async open(path?: string): Promise<HandMadeDestination> {
    const server = createServer({ allowHalfOpen: true });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once("error", reject);
    if (path === undefined) server.listen(0, "127.0.0.1", resolve);
    else server.listen(path, resolve);
    await promise;
    const address = server.address();
    const isTcp = typeof address === "object" && address !== null;
    return new HandMadeDestination(
      server,
      isTcp ? `tcp:127.0.0.1:${address.port}` : `unix:${path}`,
    );
  }

  /** Lets nobody in any more; who is there stays. */
  refuseMore(): void {
    this.#server.close();
  }

  /** The first connection, or the one that came `number`th after it. */
  async accept(number = 0): Promise<HandMadePeer> {
    return await waitUntil(() => this.#peers[number], "a connection from the source");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await promise;
  }
}
