/** One connection over TLS to a destination, up to the end of the handshake. */
import type { SocketHandler } from "bun";
import type { SocketAddress } from "../../syscalls/socket.ts";
import { formatSocketPeer } from "../channel/address.ts";
import { HANDSHAKE_TIMEOUT_MS, isTrusted, tlsOptions, tune } from "./bridge.ts";
import type { Credentials } from "./credentials.ts";
import { explainTls, TlsError } from "./failures.ts";
import { JOINT_HANDLERS, socketState } from "./joint.ts";
import type { BridgeSocket, SocketState } from "./joint.ts";

/** Where to, and as whom. */
export interface DialOptions {
  address: Exclude<SocketAddress, { family: "unix" }>;
  credentials: Credentials;
  /** Whose certificate is expected there: a name or an address. */
  hostname: string;
  /** How long somebody may take to be there; the handshake has a limit of its own beside it. */
  patienceMs: number;
  /** After how long a link on which nothing arrives is dead. */
  linkTimeoutMs: number;
  /** Told of each piece that the destination sends: it has taken us. */
  heard: () => void;
  /** Told why a connection that stood has ended, where TLS knows. */
  broke: (error: TlsError) => void;
  /** Told of the end of a connection on which the destination has said nothing. */
  endedUnheard: () => void;
}

/**
 * Resolves with a paused connection to somebody who is trusted.
 * @throws TlsError when somebody is there who is not; the library's error when nobody is.
 */
export async function dial(options: DialOptions): Promise<BridgeSocket> {
  const { address, credentials, hostname, patienceMs } = options;
  const attempt = new Attempt(formatSocketPeer(address), options);
  const limitMs = patienceMs + HANDSHAKE_TIMEOUT_MS;
  const timer = setTimeout(() => attempt.timeOut(limitMs), limitMs);
  try {
    Bun.connect<SocketState>({
      hostname: address.host,
      port: address.port,
      allowHalfOpen: true,
      data: socketState(attempt.peer),
      tls: { ...tlsOptions(credentials), serverName: hostname },
      socket: attempt.handlers(),
    }).catch(() => {
      // The handler connectError has heard of it.
    });
    return await attempt.result.promise;
  } finally {
    clearTimeout(timer);
  }
}

class Attempt {
  readonly peer: string;
  readonly result = Promise.withResolvers<BridgeSocket>();
  readonly #options: DialOptions;
  #settled = false;
  /** The destination has said something, or why it does not: what ends it now is not TLS. */
  #heard = false;

  constructor(peer: string, options: DialOptions) {
    this.peer = peer;
    this.#options = options;
  }

  handlers(): SocketHandler<SocketState> {
    return {
      ...JOINT_HANDLERS,
      open: (socket) => {
        tune(socket, this.#options.linkTimeoutMs);
        // Given up meanwhile.
        if (this.#settled) socket.terminate();
      },
      handshake: (socket, ok, error) => this.#judge(socket, ok, error),
      data: (socket, bytes) => {
        this.#heard = true;
        this.#options.heard();
        JOINT_HANDLERS.data(socket, bytes);
      },
      end: (socket) => {
        if (!this.#heard) this.#options.endedUnheard();
        JOINT_HANDLERS.end(socket);
      },
      close: (socket, error) => {
        const why = explainTls(this.peer, error ?? new Error("it closed the connection"));
        if (error !== undefined && socket.data.end !== undefined) this.#options.broke(why);
        this.#fail(why);
        JOINT_HANDLERS.close(socket, error);
      },
      error: (socket, error) => {
        this.#heard = true;
        if (socket.data.end === undefined) this.#fail(explainTls(this.peer, error));
        else this.#options.broke(explainTls(this.peer, error));
        socket.terminate();
      },
      connectError: (_, error) => this.#fail(error),
    };
  }

  timeOut(limitMs: number): void {
    const message = `${this.peer} has not finished the TLS handshake after ${limitMs / 1000} s`;
    this.#fail(new TlsError("TLS_TIMEOUT", message));
  }

  #judge(socket: BridgeSocket, ok: boolean, error: Error | null): void {
    if (this.#settled) return;
    if (ok && error === null && isTrusted(socket)) {
      this.#settled = true;
      socket.pause();
      this.result.resolve(socket);
      return;
    }
    this.#fail(explainTls(this.peer, error ?? new Error("the TLS library does not say why")));
    socket.terminate();
  }

  #fail(error: Error): void {
    if (this.#settled) return;
    this.#settled = true;
    this.result.reject(error);
  }
}
