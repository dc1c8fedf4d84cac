/** Both bridges in this process, with sockets of the test at the ends that the threads have. */
import { expect, test } from "bun:test";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { Server, Socket } from "node:net";
import type { BridgeNews } from "../../../src/tls/bridge.ts";
import { makeAuthority, makeCredential } from "../../../src/tls/certificate.ts";
import { ConnectingBridge } from "../../../src/tls/connecting.ts";
import { readCredentials } from "../../../src/tls/credentials.ts";
import type { Credentials } from "../../../src/tls/credentials.ts";
import { ListeningBridge } from "../../../src/tls/listening.ts";
import { JOINED } from "../../../src/channel/joined.ts";
import { makeCertificates, makeRevocation } from "../../helpers/certificates.ts";
import { waitUntil, withDeadline } from "../../helpers/deadline.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const LOOPBACK = { family: "inet", host: "127.0.0.1", port: 0 } as const;
const MIB = 1024 * 1024;

interface Options {
  server?: Credentials;
  client?: Credentials;
  allow?: { address: string; prefix: number }[];
  handshakeMs?: number;
}

class Bench implements AsyncDisposable {
  readonly certificates = makeCertificates();
  readonly news: BridgeNews[] = [];
  readonly #place = new TemporaryDirectory("bridge");
  readonly #accepted: Socket[] = [];
  readonly #sockets: Socket[] = [];
  #server!: Server;
  listening!: ListeningBridge;
  connecting!: ConnectingBridge;

  static async start(make: (bench: Bench) => Options = () => ({})): Promise<Bench> {
    const bench = new Bench();
    const { path } = bench.certificates;
    const tell = (news: BridgeNews): void => void bench.news.push(news);
    const {
      server = readCredentials(path, "server"),
      client = readCredentials(path, "client"),
      allow = [],
      handshakeMs,
    } = make(bench);
    const target = bench.#place.file("threads");
    bench.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
      bench.#accepted.push(bench.#keep(socket));
    });
    bench.#server.listen(target);
    await once(bench.#server, "listening");
    const linkTimeoutMs = 30_000;
    const listen = { kind: "listen", linkTimeoutMs, addresses: [LOOPBACK], allow, target } as const;
    bench.listening = new ListeningBridge(
      { ...listen, addresses: [LOOPBACK], credentials: server },
      tell,
      handshakeMs,
    );
    bench.connecting = new ConnectingBridge(
      {
        kind: "connect",
        linkTimeoutMs,
        credentials: client,
        addresses: [bench.listening.address],
        hostname: "127.0.0.1",
        patienceMs: 0,
        path: bench.#place.file("source"),
      },
      tell,
    );
    return bench;
  }

  get port(): number {
    const { address } = this.listening;
    return address.family === "unix" ? 0 : address.port;
  }

  #keep(socket: Socket): Socket {
    this.#sockets.push(socket);
    return socket.on("error", () => undefined);
  }

  /** A connection as a thread of the source makes it. */
  near(): Socket {
    const { address } = this.connecting;
    if (address.family !== "unix") throw new Error("the bridge does not listen on a unix socket");
    return this.#keep(connect({ path: address.path, allowHalfOpen: true }));
  }

  /** A plain connection to where the destination listens. */
  stranger(): Socket {
    return this.#keep(connect({ host: "127.0.0.1", port: this.port }));
  }

  /** The `count`th connection that has come out at the destination. */
  async far(count = 1): Promise<Socket> {
    return await waitUntil(() => this.#accepted[count - 1], "a connection behind the bridges");
  }

  /** Both ends of a connection that stands. */
  async joined(): Promise<[near: Socket, far: Socket]> {
    const near = this.near();
    const [first] = (await withDeadline(once(near, "data"), "the byte that says joined")) as [
      Buffer,
    ];
    expect([...first]).toEqual([JOINED]);
    near.pause();
    return [near, await this.far()];
  }

  /** The news that match. */
  async told(words: string): Promise<void> {
    const match = (): boolean => JSON.stringify(this.news).includes(words);
    await waitUntil(match, `news of ${words}`).catch((error: unknown) => {
      throw new Error(`${JSON.stringify(this.news)}`, { cause: error });
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await Promise.all([this.connecting.close(), this.listening.close()]);
    await this.certificates[Symbol.asyncDispose]();
    await this.#place[Symbol.asyncDispose]();
  }
}

/** All that comes until the end. */
async function readAll(socket: Socket): Promise<Buffer> {
  const parts: Buffer[] = [];
  // Its iterator would close it at the end of what is read.
  socket.on("data", (part: Buffer) => parts.push(part));
  socket.resume();
  await once(socket, "end");
  return Buffer.concat(parts);
}

/** The end of a connection, in whatever way. */
async function closed(socket: Socket): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  socket.on("close", () => resolve());
  if (socket.destroyed) resolve();
  await promise;
}

function randomBytes(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 65_536) {
    crypto.getRandomValues(bytes.subarray(at, Math.min(at + 65_536, length)));
  }
  return bytes;
}

test("what one end writes comes out at the other, whole, also to one that has ended", async () => {
  await using bench = await Bench.start();
  const [near, far] = await bench.joined();
  const [there, back] = [randomBytes(3 * MIB + 17), randomBytes(MIB + 5)];
  near.end(there);
  expect((await withDeadline(readAll(far), "what was written")).equals(there)).toBe(true);
  // The other direction is open still.
  far.end(back);
  expect((await withDeadline(readAll(near), "the answer")).equals(back)).toBe(true);
});

test("nothing is lost of a writer who is gone when it has written all", async () => {
  await using bench = await Bench.start();
  const [near, far] = await bench.joined();
  const bytes = randomBytes(3 * MIB);
  const read = readAll(far);
  near.end(bytes);
  await withDeadline(once(near, "finish"), "the end of the writer");
  near.destroy();
  expect((await withDeadline(read, "all that was under way")).equals(bytes)).toBe(true);
});

test("an end that is cut off is cut off at the other", async () => {
  await using bench = await Bench.start();
  const [near, far] = await bench.joined();
  const end = readAll(near);
  far.destroy();
  expect((await withDeadline(end, "the end")).length).toBe(0);
});

test("a bridge that is closed lets go out what is under way", async () => {
  await using bench = await Bench.start();
  const [near, far] = await bench.joined();
  const last = randomBytes(2 * MIB);
  far.end(last);
  far.resume();
  const read = readAll(near).then((bytes) => {
    near.end();
    return bytes;
  });
  await withDeadline(bench.listening.close(), "the end of the bridge");
  expect((await read).equals(last)).toBe(true);
});

test("strangers without a handshake make room for each other, and for who is awaited", async () => {
  await using bench = await Bench.start();
  const ended = Promise.withResolvers<void>();
  for (let i = 0; i < 40; i++) {
    const socket = bench.stranger();
    if (i === 0) socket.on("close", () => ended.resolve());
    await once(socket, "connect");
  }
  await withDeadline(ended.promise, "the end of the oldest");
  await bench.told("has not finished its TLS handshake, beside 32 others");
  await bench.joined();
});

test("a handshake has a time limit", async () => {
  await using bench = await Bench.start(() => ({ handshakeMs: 50 }));
  const socket = bench.stranger();
  await withDeadline(closed(socket), "the end of the stranger");
  await bench.told("has not finished its TLS handshake within 0.05 s");
});

test("who may not connect is closed before anything is said", async () => {
  await using bench = await Bench.start(() => ({ allow: [{ address: "192.0.2.0", prefix: 24 }] }));
  const socket = bench.stranger();
  await withDeadline(closed(socket), "the end of the stranger");
  await bench.told("was turned away: --allow does not name it");
});

test("a certificate that ca-crl.pem revokes is refused", async () => {
  await using bench = await Bench.start(({ certificates }) => {
    const authority = makeAuthority({ days: 1 });
    const [server, client] = (["server", "client"] as const).map((end) => {
      const made = makeCredential(authority, end, ["127.0.0.1"], { days: 1 });
      const shared = { authority: authority.certificate, revoked: undefined };
      return { end, ...made, ...shared } satisfies Credentials;
    });
    if (server === undefined || client === undefined) throw new Error("no certificates");
    const path = certificates.file("ca-crl.pem");
    writeFileSync(path, makeRevocation(authority, client.certificate));
    const { revoked } = readCredentials(certificates.path, "server");
    return { client, server: { ...server, revoked } };
  });
  bench.near();
  await bench.told("shows a certificate that ca-crl.pem revokes");
});
