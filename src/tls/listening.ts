/**
 * The bridge of a destination: it listens where the source connects, and joins who has shown a
 * certificate of our authority with the socket where the incoming thread listens.
 */
import type { SocketHandler, TCPSocketListener } from "bun";
import { formatSocketPeer } from "../channel/address.ts";
import { AllowList } from "../channel/allow.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";
import { cannotListen } from "../channel/listen.ts";
import { LimitedWarnings } from "../channel/limited-warnings.ts";
import { MULTIFD_CHANNELS_MAX } from "../stream/constants.ts";
import { errorRecord } from "../util/errors.ts";
import {
  DRAIN_TIMEOUT_MS,
  HANDSHAKE_TIMEOUT_MS,
  isTrusted,
  systemError,
  tlsOptions,
  tune,
} from "./bridge.ts";
import type { Bridge, BridgeTask, TellBridge } from "./bridge.ts";
import { explainTls, TlsError, unexplained } from "./failures.ts";
import { JOINT_HANDLERS, socketState } from "./joint.ts";
import type { BridgeSocket, SocketState } from "./joint.ts";
import { Joints } from "./joints.ts";

/** Connections that may be in the middle of their handshake; the oldest makes room. */
const UNFINISHED_MAX = 32;
/** Connections at once that are joined: a main one, a preempt channel, and multifd channels. */
const JOINED_MAX = MULTIFD_CHANNELS_MAX + 2;

type ListenTask = Extract<BridgeTask, { kind: "listen" }>;

export class ListeningBridge implements Bridge {
  readonly address: SocketAddress;
  readonly #handshakeMs: number;
  readonly #task: ListenTask;
  readonly #tell: TellBridge;
  readonly #allow: AllowList;
  readonly #listener: TCPSocketListener<SocketState>;
  /** In the middle of their handshake, oldest first, and what ends them. */
  readonly #unfinished = new Map<BridgeSocket, ReturnType<typeof setTimeout>>();
  readonly #joints = new Joints();
  readonly #warnings: LimitedWarnings;

  /** Opens it. @throws PostcopyError CANNOT_LISTEN. */
  constructor(task: ListenTask, tell: TellBridge, handshakeMs = HANDSHAKE_TIMEOUT_MS) {
    this.#handshakeMs = handshakeMs;
    this.#task = task;
    this.#tell = tell;
    this.#warnings = new LimitedWarnings((message) => tell({ kind: "warning", message }));
    this.#allow = new AllowList(task.allow, (message) => this.#warnings.say(message));
    const { listener, address } = this.#open();
    this.#listener = listener;
    this.address = address;
  }

  #open(): { listener: TCPSocketListener<SocketState>; address: SocketAddress } {
    const tls = tlsOptions(this.#task.credentials);
    let failure: unknown;
    for (const address of this.#task.addresses) {
      if (address.family === "unix") throw new Error("TLS over a unix socket");
      const { host: hostname, port } = address;
      try {
        const socket = this.#handlers();
        const options = { hostname, port, exclusive: true, allowHalfOpen: true, tls, socket };
        const listener = Bun.listen<SocketState>(options);
        return { listener, address: { ...address, port: listener.port } };
      } catch (error) {
        failure ??= error instanceof Error ? systemError("listen", error, address) : error;
      }
    }
    throw cannotListen(this.#task.addresses, failure);
  }

  #handlers(): SocketHandler<SocketState> {
    return {
      ...JOINT_HANDLERS,
      open: (socket) => this.#admit(socket),
      handshake: (socket, ok, error) => this.#judge(socket, ok ? error : (error ?? unexplained())),
      close: (socket, error) => {
        const { end, peer } = socket.data;
        if (error !== undefined && end !== undefined) this.#fail(explainTls(peer, error));
        this.#judge(socket, error ?? new Error("it closed the connection"));
        JOINT_HANDLERS.close(socket, error);
      },
      error: (socket, error) => {
        if (socket.data.end !== undefined) this.#fail(explainTls(socket.data.peer, error));
        socket.terminate();
      },
    };
  }

  /** Somebody is there: nothing is done for who may not be. */
  #admit(socket: BridgeSocket): void {
    socket.data = socketState(peerOf(socket));
    if (!this.#allow.admits(socket.remoteAddress, socket.data.peer)) {
      socket.terminate();
      return;
    }
    tune(socket, this.#task.linkTimeoutMs);
    const [oldest] = this.#unfinished.keys();
    if (oldest !== undefined && this.#unfinished.size === UNFINISHED_MAX) {
      this.#turnAway(oldest, `has not finished its TLS handshake, beside ${UNFINISHED_MAX} others`);
    }
    const timer = setTimeout(() => {
      const seconds = this.#handshakeMs / 1000;
      this.#turnAway(socket, `has not finished its TLS handshake within ${seconds} s`);
    }, this.#handshakeMs);
    this.#unfinished.set(socket, timer);
  }

  #release(socket: BridgeSocket): void {
    clearTimeout(this.#unfinished.get(socket));
    this.#unfinished.delete(socket);
  }

  #judge(socket: BridgeSocket, error: Error | null): void {
    // One that was turned away is told of once.
    if (!this.#unfinished.has(socket)) return;
    const { peer } = socket.data;
    if (error !== null || !isTrusted(socket)) {
      const why = explainTls(peer, error ?? unexplained());
      this.#warnings.say(`A connection was turned away: ${why.message}`);
      this.#release(socket);
      // Not cut off: the alert that says why is still to go out.
      socket.end();
      return;
    }
    this.#release(socket);
    if (this.#joints.size === JOINED_MAX) {
      this.#turnAway(socket, `is one too many: there are ${JOINED_MAX} connections already`);
      return;
    }
    socket.pause();
    this.#tell({ kind: "secured", peer });
    void this.#join(socket, peer);
  }

  async #join(socket: BridgeSocket, peer: string): Promise<void> {
    try {
      const data = socketState("the incoming thread");
      const options = { unix: this.#task.target, allowHalfOpen: true, data };
      const local = await Bun.connect<SocketState>({ ...options, socket: JOINT_HANDLERS });
      if (socket.data.closed) {
        local.terminate();
        return;
      }
      this.#joints.join(socket, local);
    } catch (cause) {
      // Nobody listens there any more: the migration is over.
      this.#fail(new TlsError("TLS_FAILED", `${peer} came when nobody was awaited`, { cause }));
      socket.terminate();
    }
  }

  #turnAway(socket: BridgeSocket, why: string): void {
    this.#warnings.say(`A connection was turned away: ${socket.data.peer} ${why}`);
    this.#release(socket);
    socket.terminate();
  }

  #fail(error: TlsError): void {
    this.#tell({ kind: "failed", error: errorRecord(error) });
  }

  async close(): Promise<void> {
    this.#listener.stop();
    for (const socket of [...this.#unfinished.keys()]) {
      this.#release(socket);
      socket.terminate();
    }
    await this.#joints.drain(DRAIN_TIMEOUT_MS);
  }
}

function peerOf(socket: BridgeSocket): string {
  const { remoteAddress: host, remotePort: port } = socket;
  return formatSocketPeer({
    family: socket.remoteFamily === "IPv6" ? "inet6" : "inet",
    host,
    port,
  });
}
