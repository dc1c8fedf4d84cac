/**
 * A crowd that connects to where a migration is awaited: every other one says nothing, the others what
 * is no migration. All of them stay for as long as they are let.
 */
import { connect } from "node:net";
import type { Socket } from "node:net";

import { parsePeer } from "../../src/channel/address.ts";
import { withDeadline } from "./deadline.ts";

export class Crowd implements Disposable {
  readonly #sockets: Socket[] = [];

  /** Has `count` more connect to a tcp peer; resolves when the kernel has taken all of them. */
  async connect(peer: string, count: number): Promise<void> {
    const address = parsePeer(peer);
    if (address.kind !== "tcp") throw new Error(`a crowd comes over tcp, not to ${peer}`);
    const { host, port } = address;
    const arrivals = Array.from({ length: count }, async (_, i) => {
      const { promise, resolve } = Promise.withResolvers<void>();
      const socket = connect({ host, port }, resolve);
      // Many are turned away while others still come.
      socket.on("error", () => resolve());
      this.#sockets.push(socket);
      await promise;
      if (i % 2 === 1) socket.write("GET / HTTP/1.1\r\n\r\n");
    });
    await withDeadline(Promise.all(arrivals), `${count} connections to ${peer}`);
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}
