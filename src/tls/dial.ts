/** One connection over TLS to a destination, up to the end of the handshake. */
import type { SocketHandler } from "bun";
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { formatSocketAddress } from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";
import { formatSocketPeer } from "../channel/address.ts";
import { formatDuration } from "../util/duration.ts";
import { isTrusted, tlsOptions, tune } from "./bridge.ts";
import type { Credentials } from "./credentials.ts";
import { explainTls, TlsError, unexplained } from "./failures.ts";
import { JOINT_HANDLERS, socketState } from "./joint.ts";
import type { BridgeSocket, SocketState } from "./joint.ts";

/** Where to, and as whom. */
export interface DialOptions {
  address: Exclude<SocketAddress, { family: "unix" }>;
  credentials: Credentials;
  /** Whose certificate is expected there: a name or an address. */
  hostname: string;
  /** How long somebody may take to be there. */
  connectMs: number;
  /** How long the handshake may take, from then on. */
  handshakeMs: number;
  /** After how long a link on which nothing arrives is dead. */
  linkTimeoutMs: number;
  /** Told of each piece that the destination sends: it has taken us. */
  heard: () => void;
  /** Told why a connection that stood has ended, where TLS knows. */
  broke: (error: TlsError) => void;
  /** Told of the end of a connection on which the destination has said nothing. */
  endedUnheard: () => void;
  /** Ends a connection that is still being made. */
  signal: AbortSignal;
}

/**
 * Resolves with a paused connection to somebody who is trusted.
 * @throws TlsError when somebody is there who is not; the library's error when nobody is.
 */
export async function dial(options: DialOptions): Promise<BridgeSocket> {
  const { address, credentials, hostname, signal } = options;
  const attempt = new Attempt(formatSocketPeer(address), options);
  const giveUp = (): void => attempt.fail(new Error("the bridge was closed"));
  signal.addEventListener("abort", giveUp);
  try {
    signal.throwIfAborted();
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
    signal.removeEventListener("abort", giveUp);
    attempt.stopTimer();
  }
}

class Attempt {
  readonly peer: string;
  readonly result = Promise.withResolvers<BridgeSocket>();
  readonly #options: DialOptions;
  #state: "open" | "made" | "failed" = "open";
  /** Once it is connected. */
  #socket: BridgeSocket | undefined;
  #timer: ReturnType<typeof setTimeout>;
  /** The destination has said something, or why it does not: what ends it now is not TLS. */
  #heard = false;

  constructor(peer: string, options: DialOptions) {
    this.peer = peer;
    this.#options = options;
    this.#timer = setTimeout(() => this.#findNobody(), options.connectMs);
  }

  stopTimer(): void {
    clearTimeout(this.#timer);
  }

  handlers(): SocketHandler<SocketState> {
    return {
      ...JOINT_HANDLERS,
      open: (socket) => this.#begin(socket),
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
        this.fail(why);
        JOINT_HANDLERS.close(socket, error);
      },
      error: (socket, error) => {
        this.#heard = true;
        if (socket.data.end === undefined) this.fail(explainTls(this.peer, error));
        else this.#options.broke(explainTls(this.peer, error));
        socket.terminate();
      },
      connectError: (_, error) => this.fail(error),
    };
  }

  /** Somebody is there. Of one that was given up before, nothing is used any more. */
  #begin(socket: BridgeSocket): void {
    if (this.#state === "failed") {
      socket.terminate();
      return;
    }
    this.#socket = socket;
    tune(socket, this.#options.linkTimeoutMs);
    const { handshakeMs } = this.#options;
    this.stopTimer();
    this.#timer = setTimeout(() => {
      const after = formatDuration(handshakeMs);
      const message = `${this.peer} has not finished the TLS handshake after ${after}`;
      this.fail(new TlsError("TLS_TIMEOUT", message));
    }, handshakeMs);
  }

  /** What the kernel would say of it, later. */
  #findNobody(): void {
    const where = formatSocketAddress(this.#options.address);
    this.fail(new SyscallError("connect", ERRNO.ETIMEDOUT, where));
  }

  #judge(socket: BridgeSocket, ok: boolean, error: Error | null): void {
    if (this.#state === "made") return;
    if (this.#state === "open" && ok && error === null && isTrusted(socket)) {
      this.#state = "made";
      socket.pause();
      this.result.resolve(socket);
      return;
    }
    this.fail(explainTls(this.peer, error ?? unexplained()));
    socket.terminate();
  }

  /** Gives it up, if it is not made or given up yet; a late one leaves nothing open. */
  fail(error: Error): void {
    if (this.#state !== "open") return;
    this.#state = "failed";
    this.result.reject(error);
    this.#socket?.terminate();
  }
}
