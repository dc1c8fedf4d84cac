/** A link between two ends that keeps what goes by, in both directions, and that can be cut. */
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";

/** One connection: what went to the destination, and what came back. */
export interface Tapped {
  forward: Buffer[];
  back: Buffer[];
}

export class Tap implements AsyncDisposable {
  readonly uri: string;
  readonly connections: Tapped[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #target: string;

  private constructor(server: Server, target: string) {
    this.#server = server;
    this.#target = target;
    this.uri = `tcp:127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on("connection", (socket) => this.#carry(socket));
  }

  /** Carries what connects to `target` (`tcp:HOST:PORT`). */
  static async start(target: string): Promise<Tap> {
    const server = createServer({ allowHalfOpen: true });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", resolve);
    await promise;
    return new Tap(server, target);
  }

  /** Breaks every connection; later ones go to `target`, if one is given. */
  cut(target = this.#target): void {
    this.#target = target;
    for (const socket of this.#sockets) socket.resetAndDestroy();
    this.#sockets.clear();
  }

  #carry(near: Socket): void {
    const [, host = "", port = ""] = this.#target.split(":");
    const far = connect({ host, port: Number(port), allowHalfOpen: true });
    const tapped: Tapped = { forward: [], back: [] };
    this.connections.push(tapped);
    this.#sockets.add(near).add(far);
    for (const [from, to, kept] of [
      [near, far, tapped.forward],
      [far, near, tapped.back],
    ] as const) {
      from.on("error", () => to.resetAndDestroy());
      from.on("data", (bytes: Buffer) => kept.push(bytes));
      from.on("close", () => to.destroy());
      from.pipe(to);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
    return Promise.resolve();
  }
}
