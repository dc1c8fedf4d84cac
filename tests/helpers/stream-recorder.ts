/**
 * Stands between a source and a destination and keeps what the source sends, byte for byte:
 *
 *     await using recorder = await StreamRecorder.start(dest.peer, file);
 *     await source.qmp.execute("migrate", { uri: recorder.uri });
 *
 * The file is a capture of the main channel, which begins with QEMU's magic; further channels
 * (multifd, preempt) pass through and are not kept.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";

import { STREAM_MAGIC } from "../../src/stream/constants.ts";
import { withDeadline } from "./deadline.ts";

export class StreamRecorder implements AsyncDisposable {
  /** Where the source connects to. */
  readonly uri: string;
  readonly #server: Server;
  readonly #sockets: Socket[] = [];
  readonly #ended = Promise.withResolvers<void>();

  private constructor(server: Server) {
    this.#server = server;
    this.uri = `tcp:127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  /** Starts recording into `file` what is sent to `peer` (`tcp:HOST:PORT`). */
  static async start(peer: string, file: string): Promise<StreamRecorder> {
    const server = createServer({ allowHalfOpen: true });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", resolve);
    await promise;
    const recorder = new StreamRecorder(server);
    server.on("connection", (source) => recorder.#relay(source, peer, file));
    return recorder;
  }

  /** Waits until both ends of the main channel have closed: all that was sent is in the file. */
  async finish(): Promise<void> {
    await withDeadline(this.#ended.promise, "the end of the recorded connection");
  }

  #relay(source: Socket, peer: string, file: string): void {
    const [, host = "", port = ""] = peer.split(":");
    const destination = connect({ host, port: Number(port), allowHalfOpen: true });
    this.#sockets.push(source, destination);
    let fd: number | undefined;
    source.once("data", (first: Buffer) => {
      if (first.length >= 4 && first.readUInt32BE(0) === STREAM_MAGIC) fd = openSync(file, "w");
    });
    source.on("data", (bytes: Buffer) => {
      if (fd !== undefined) writeSync(fd, bytes);
    });
    source.pipe(destination);
    destination.pipe(source);
    const closed = [source, destination].map(async (socket) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      // Either side may break off in the middle of a migration.
      socket.on("error", () => {});
      socket.on("close", resolve);
      await promise;
    });
    void Promise.all(closed).then(() => {
      if (fd === undefined) return;
      closeSync(fd);
      this.#ended.resolve();
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    return Promise.resolve();
  }
}
