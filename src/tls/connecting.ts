/**
 * The bridge of a source: whoever connects to its private unix socket is joined with a connection of
 * its own to the destination, over TLS. That this one stands is said by a first byte (JOINED).
 */
import { chmodSync } from "node:fs";
import type { UnixSocketListener } from "bun";
import { formatSocketPeer } from "../channel/address.ts";
import { cannotConnect, RETRY_PAUSE_MS, shortestTryMs } from "../channel/connect.ts";
import { JOINED } from "../channel/joined.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";
import { errorRecord } from "../util/errors.ts";
import { DRAIN_TIMEOUT_MS, HANDSHAKE_TIMEOUT_MS, systemError } from "./bridge.ts";
import type { Bridge, BridgeTask, TellBridge } from "./bridge.ts";
import { dial } from "./dial.ts";
import { endedUnheard, TlsError } from "./failures.ts";
import { JOINT_HANDLERS, socketState } from "./joint.ts";
import type { BridgeSocket, SocketState } from "./joint.ts";
import { Joints } from "./joints.ts";

type ConnectTask = Extract<BridgeTask, { kind: "connect" }>;

export class ConnectingBridge implements Bridge {
  readonly address: SocketAddress;
  readonly #task: ConnectTask;
  readonly #tell: TellBridge;
  readonly #listener: UnixSocketListener<SocketState>;
  readonly #joints = new Joints();
  /** Somebody was there: from now on whoever connects tries again by itself. */
  #found = false;
  /** The destination has said something, on any connection. */
  #heard = false;
  /** Ends the connections that are being made. */
  readonly #closing = new AbortController();
  readonly #handshakeMs: number;

  constructor(task: ConnectTask, tell: TellBridge, handshakeMs = HANDSHAKE_TIMEOUT_MS) {
    this.#handshakeMs = handshakeMs;
    this.#task = task;
    this.#tell = tell;
    this.address = { family: "unix", path: task.path };
    this.#listener = Bun.listen<SocketState>({
      unix: task.path,
      allowHalfOpen: true,
      socket: { ...JOINT_HANDLERS, open: (socket) => void this.#serve(socket) },
    });
    // Its directory keeps others out already.
    chmodSync(task.path, 0o600);
  }

  /** One of our threads has connected. */
  async #serve(local: BridgeSocket): Promise<void> {
    local.data = socketState("this program");
    local.pause();
    try {
      const remote = await this.#connect(local);
      if (local.data.closed || this.#closing.signal.aborted) {
        remote.terminate();
        return;
      }
      local.write(Uint8Array.of(JOINED));
      this.#joints.join(local, remote);
      this.#tell({ kind: "secured", peer: remote.data.peer });
    } catch (error) {
      if (!this.#closing.signal.aborted) this.#fail(error);
      local.end();
    }
  }

  /** Who has ever said something has taken our certificate: what ends now is not for that. */
  #noteUnheard(peer: string): void {
    if (!this.#heard) this.#fail(endedUnheard(peer));
  }

  #fail(error: unknown): void {
    this.#tell({ kind: "failed", error: errorRecord(error) });
  }

  /** Tries every address until one answers, as long as patience lasts and the thread is there. */
  async #connect(local: BridgeSocket): Promise<BridgeSocket> {
    const patienceMs = this.#found ? 0 : this.#task.patienceMs;
    const deadline = performance.now() + patienceMs;
    const leastMs = shortestTryMs({ patienceMs, linkTimeoutMs: this.#task.linkTimeoutMs });
    for (let tries = 1; ; tries++) {
      const result = await this.#tryAll(deadline, leastMs);
      if (!(result instanceof Error)) return result;
      const { aborted } = this.#closing.signal;
      if (performance.now() >= deadline || local.data.closed || aborted) {
        throw cannotConnect(this.#task.addresses, result);
      }
      if (tries === 1) this.#tell({ kind: "waiting" });
      await Bun.sleep(RETRY_PAUSE_MS);
    }
  }

  /**
   * Each address has its share of the time until `deadline`, and at least `leastMs`. Gives the last
   * error where nobody is there. @throws TlsError of somebody who will not change.
   */
  async #tryAll(deadline: number, leastMs: number): Promise<BridgeSocket | Error> {
    const { addresses, credentials, hostname, linkTimeoutMs } = this.#task;
    const common = {
      ...{ credentials, hostname, linkTimeoutMs },
      handshakeMs: this.#handshakeMs,
      signal: this.#closing.signal,
      heard: (): void => void (this.#heard = true),
      broke: (error: TlsError): void => this.#fail(error),
    };
    let failure = new Error("there is no address");
    for (const [index, address] of addresses.entries()) {
      if (address.family === "unix") throw new Error("TLS over a unix socket");
      const unheard = (): void => this.#noteUnheard(formatSocketPeer(address));
      const shareMs = (deadline - performance.now()) / (addresses.length - index);
      const connectMs = Math.max(leastMs, shareMs);
      try {
        const socket = await dial({ ...common, address, connectMs, endedUnheard: unheard });
        this.#found = true;
        return socket;
      } catch (error) {
        if (error instanceof TlsError || !(error instanceof Error)) throw error;
        failure = systemError("connect", error, address);
      }
    }
    return failure;
  }

  async close(): Promise<void> {
    this.#listener.stop();
    this.#closing.abort();
    await this.#joints.drain(DRAIN_TIMEOUT_MS);
  }
}
