/**
 * A link between a source and a destination that a test can cut, as a network does:
 *
 *     await using link = await Link.start(dest.peer);
 *     await using source = startSource({ to: link.uri });
 *     link.cut();
 *     link.mend(dest.peer);
 *
 * With `holdBehind` what has to happen in the middle of a migration happens there, however fast the rest
 * of it would be.
 */
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";

export class Link implements AsyncDisposable {
  /** Where the source connects to. */
  readonly uri: string;
  /** Connections that were carried so far. */
  connections = 0;
  readonly #far: Socket[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #from: string | undefined;
  /** The far end of each near one. */
  readonly #partners = new WeakMap<Socket, Socket>();
  /** To whom each of them leads. */
  readonly #sides = new WeakMap<Socket, "source" | "destination">();
  #target: string | undefined;
  #cutAtAnswer = false;
  /** Bytes that are carried towards the destination on each connection. */
  #most = Infinity;
  /** Connections of the source of which nothing more is carried. */
  readonly #held = new Set<Socket>();

  private constructor(server: Server, target: string, from: string | undefined) {
    this.#from = from;
    this.uri = `tcp:127.0.0.1:${(server.address() as AddressInfo).port}`;
    this.#server = server;
    this.#target = target;
  }

  /** A link to `target` (`tcp:HOST:PORT`), which it reaches `from` an address of this host. */
  static async start(target: string, from?: string): Promise<Link> {
    const server = createServer({ allowHalfOpen: true });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", resolve);
    await promise;
    const link = new Link(server, target, from);
    server.on("connection", (socket) => link.#carry(socket));
    return link;
  }

  /** Whether nothing is carried. */
  get isCut(): boolean {
    return this.#target === undefined;
  }

  /** Bytes that the destination was sent on a connection, by their order. */
  carried(connection: number): number {
    return this.#far[connection]?.bytesWritten ?? 0;
  }

  /**
   * Carries no more than `bytes` towards the destination on each connection, and what is just on its way.
   * The rest waits until the link is cut, or let go on. (Of each: what a destination asks for before its
   * guest runs must not wait for what is pushed.)
   */
  holdBehind(bytes: number): void {
    this.#most = bytes;
  }

  /** Goes on carrying what is held. */
  carryOn(): void {
    this.#most = Infinity;
    for (const near of this.#held) {
      const far = this.#partners.get(near);
      if (far !== undefined) near.pipe(far);
    }
    this.#held.clear();
  }

  /** Ends every connection with a reset; who connects from now on is turned away. */
  cut(): void {
    this.#target = undefined;
    this.#most = Infinity;
    for (const socket of this.#sockets) socket.resetAndDestroy();
    this.#sockets.clear();
    this.#held.clear();
  }

  /** Ends one direction of every connection; what goes in the other is carried on. */
  close(towards: "source" | "destination"): void {
    for (const socket of this.#sockets) if (this.#sides.get(socket) === towards) socket.end();
  }

  /** Carries nothing more towards the destination on one connection, by their order. */
  hold(connection: number): void {
    const far = this.#far[connection];
    for (const near of this.#sockets) {
      if (this.#sides.get(near) === "source" && this.#partners.get(near) === far) this.#hold(near);
    }
  }

  /** Ends one connection with a reset. */
  cutOne(connection: number): void {
    this.#far[connection]?.resetAndDestroy();
  }

  /** Carries what connects from now on to `target`. */
  mend(target: string): void {
    this.#target = target;
  }

  /** The same, and cuts it again at the first answer of the destination. */
  mendUntilAnswer(target: string): void {
    this.#cutAtAnswer = true;
    this.#target = target;
  }

  #hold(near: Socket): void {
    near.unpipe();
    near.pause();
    this.#held.add(near);
  }

  #carry(near: Socket): void {
    near.on("error", () => {});
    if (this.#target === undefined) {
      near.resetAndDestroy();
      return;
    }
    const [, host = "", port = ""] = this.#target.split(":");
    const localAddress = this.#from === undefined ? {} : { localAddress: this.#from };
    const far = connect({ host, port: Number(port), allowHalfOpen: true, ...localAddress });
    // What cannot be reached at the far end is refused at the near one.
    far.on("error", () => near.resetAndDestroy());
    this.connections++;
    this.#far.push(far);
    this.#sockets.add(near).add(far);
    this.#sides.set(near, "source").set(far, "destination");
    this.#partners.set(near, far);
    if (this.#cutAtAnswer) {
      this.#cutAtAnswer = false;
      far.once("data", () => this.cut());
    }
    near.pipe(far);
    // Behind what carries it, as it may be the last that is carried.
    near.on("data", () => {
      if (near.bytesRead >= this.#most) this.#hold(near);
    });
    far.pipe(near);
    near.on("close", () => far.destroy());
    far.on("close", () => near.destroy());
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    this.#server.close();
    return Promise.resolve();
  }
}
