/** The bridge of a source where nobody answers, or nobody finishes a handshake. */
import { expect, test } from "bun:test";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { bindAndListen, localAddress, makeSocket, startConnect } from "../../../syscalls/socket.ts";
import type { SocketAddress } from "../../../syscalls/socket.ts";
import type { BridgeNews } from "../../../src/tls/bridge.ts";
import { JOINED } from "../../../src/channel/joined.ts";
import { ConnectingBridge } from "../../../src/tls/connecting.ts";
import { readCredentials } from "../../../src/tls/credentials.ts";
import { ListeningBridge } from "../../../src/tls/listening.ts";
import { makeCertificates } from "../../helpers/certificates.ts";
import { waitUntil, withDeadline } from "../../helpers/deadline.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const HOST = { family: "inet", host: "127.0.0.1" } as const;

interface Options {
  patienceMs?: number;
  handshakeMs?: number;
}

/** A bridge, and what may be at the addresses that it goes to. */
class Bench implements AsyncDisposable {
  readonly news: BridgeNews[] = [];
  /** Connections to whoever says nothing, in their order. */
  readonly accepted: Socket[] = [];
  readonly #certificates = makeCertificates();
  readonly #place = new TemporaryDirectory("connecting");
  readonly #descriptors = new Descriptors();
  readonly #servers: Server[] = [];
  readonly #near: Socket[] = [];
  #good: ListeningBridge | undefined;
  #bridge: ConnectingBridge | undefined;

  async #listen(
    server: Server,
    where: { path: string } | { port: 0; host: string },
  ): Promise<void> {
    this.#servers.push(server.listen(where));
    await once(server, "listening");
  }

  /** Where a destination is. */
  async good(): Promise<SocketAddress> {
    const target = this.#place.file("threads");
    await this.#listen(createServer({ allowHalfOpen: true }), { path: target });
    const credentials = readCredentials(this.#certificates.path, "server");
    const common = { kind: "listen", linkTimeoutMs: 30_000, credentials } as const;
    const task = { ...common, allow: [], addresses: [{ ...HOST, port: 0 }], target };
    this.#good = new ListeningBridge(task, () => undefined);
    return this.#good.address;
  }

  /** Where somebody takes connections and says nothing. */
  async silent(): Promise<SocketAddress> {
    const server = createServer((socket) => {
      this.accepted.push(socket.on("error", () => undefined).resume());
    });
    await this.#listen(server, { port: 0, host: HOST.host });
    return { ...HOST, port: (server.address() as AddressInfo).port };
  }

  /** Where every further SYN is dropped, as the queue of connections is full. */
  dropping(): SocketAddress {
    const listenFd = this.#descriptors.add(makeSocket("inet"));
    bindAndListen(listenFd, { ...HOST, port: 0 }, 0);
    const address = localAddress(listenFd);
    for (let i = 0; i < 3; i++) startConnect(this.#descriptors.add(makeSocket("inet")), address);
    return address;
  }

  start(addresses: SocketAddress[], { patienceMs = 0, handshakeMs }: Options = {}): void {
    const credentials = readCredentials(this.#certificates.path, "client");
    const common = { kind: "connect", linkTimeoutMs: 30_000, hostname: "127.0.0.1" } as const;
    const task = { ...common, addresses, credentials, patienceMs, path: this.#place.file("near") };
    const tell = (news: BridgeNews): void => void this.news.push(news);
    this.#bridge = new ConnectingBridge(task, tell, handshakeMs);
  }

  /** A connection as a thread of the source makes it. */
  near(): Socket {
    const socket = connect({ path: this.#place.file("near") });
    this.#near.push(socket.on("error", () => undefined));
    return socket;
  }

  async close(): Promise<void> {
    await this.#bridge?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of [...this.#near, ...this.accepted]) socket.destroy();
    for (const server of this.#servers) server.close();
    await Promise.all([this.close(), this.#good?.close()]);
    this.#descriptors[Symbol.dispose]();
    await this.#certificates[Symbol.asyncDispose]();
    await this.#place[Symbol.asyncDispose]();
  }
}

/** Its end, in whatever way. */
async function closed(socket: Socket, what: string): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.on("close", () => resolve());
  if (socket.destroyed) resolve();
  await withDeadline(promise, what);
}

test("an address where nobody answers leaves patience for the next one", async () => {
  await using bench = new Bench();
  bench.start([bench.dropping(), await bench.good()], { patienceMs: 500 });
  const [bytes] = (await withDeadline(once(bench.near(), "data"), "JOINED")) as [Buffer];
  expect([...bytes]).toEqual([JOINED]);
  expect(bench.news.map(({ kind }) => kind)).toEqual(["secured"]);
});

test("nobody is there: that is no handshake that was not finished", async () => {
  await using bench = new Bench();
  bench.start([bench.dropping()], { patienceMs: 100 });
  await closed(bench.near().resume(), "the end of the connection");
  const [failed] = bench.news.filter(({ kind }) => kind === "failed");
  const cause = { code: "ETIMEDOUT" };
  expect(failed).toMatchObject({ error: { code: "CANNOT_CONNECT", cause } });
});

test("a handshake that is not finished is given up, and its connection closed", async () => {
  await using bench = new Bench();
  bench.start([await bench.silent()], { handshakeMs: 50 });
  await closed(bench.near().resume(), "the end of the connection");
  const says = expect.stringContaining("has not finished the TLS handshake after 50 ms");
  expect(bench.news).toMatchObject([{ error: { code: "TLS_TIMEOUT", message: says } }]);
  const [socket] = bench.accepted;
  if (socket === undefined) throw new Error("nobody connected");
  await closed(socket, "the end of what was given up");
});

test("a bridge that is closed ends what it is connecting", async () => {
  await using bench = new Bench();
  bench.start([await bench.silent()], { patienceMs: 60_000 });
  const near = bench.near().resume();
  const socket = await waitUntil(() => bench.accepted[0], "the connection");
  await bench.close();
  await Promise.all([closed(socket, "its end"), closed(near, "the end of who waits for it")]);
  // That is no failure of TLS.
  expect(bench.news).toEqual([]);
});
