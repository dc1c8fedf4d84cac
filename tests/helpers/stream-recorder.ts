/**
 * Stands between a source and a destination and keeps what the source sends, byte for byte:
 *
 *     await using recorder = await StreamRecorder.start(dest.peer, file);
 *     await source.qmp.execute("migrate", { uri: recorder.uri });
 *
 * The file is a capture of the main channel; a second connection is refused, as the two would mix.
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";

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
    server.once("connection", (source) => {
      server.close();
      recorder.#record(source, peer, file);
    });
    return recorder;
  }

  /** Waits until both ends have closed: all that was sent is in the file. */
  async finish(): Promise<void> {
    await withDeadline(this.#ended.promise, "the end of the recorded connection");
  }

  #record(source: Socket, peer: string, file: string): void {
    const [, host = "", port = ""] = peer.split(":");
    const destination = connect({ host, port: Number(port), allowHalfOpen: true });
    const fd = openSync(file, "w");
    this.#sockets.push(source, destination);
    source.on("data", (bytes: Buffer) => writeSync(fd, bytes));
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
