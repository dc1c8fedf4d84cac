/** Main's side of the thread of TLS: starts it, keeps what it tells, and ends it. */
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SocketAddress } from "../../syscalls/socket.ts";
import type { BridgeNews, BridgeResult, BridgeTask } from "../tls/bridge.ts";
import { Thread, ThreadError } from "./thread.ts";

/** What is heard of a bridge while it works. */
export interface BridgeListener {
  /** Nobody is there yet; it is tried again. */
  waiting?: () => void;
  /** Somebody was turned away. */
  warn?: (message: string) => void;
}

type ListenOptions = Omit<Extract<BridgeTask, { kind: "listen" }>, "kind" | "target">;
type ConnectOptions = Omit<Extract<BridgeTask, { kind: "connect" }>, "kind" | "path">;

export class TlsBridge {
  /** The other end, by the address of its last connection. */
  peer: string | undefined;
  /** Why a connection was last not made, or broke, where TLS knows more than its two ends. */
  failure: ThreadError | undefined;
  readonly #listener: BridgeListener;
  readonly #directory: string;
  readonly #thread: Thread<BridgeTask, BridgeNews, BridgeResult>;

  /** Starts the thread; its direction is said next. */
  constructor(listener: BridgeListener = {}) {
    this.#listener = listener;
    // Only the owner comes in here, whatever the umask.
    this.#directory = mkdtempSync(join(tmpdir(), "postcopy-tls-"));
    chmodSync(this.#directory, 0o700);
    process.once("exit", this.#removeDirectory);
    this.#thread = new Thread("tls", (news) => this.#hear(news));
  }

  /** The private socket: of a destination its threads listen there, of a source the bridge does. */
  get local(): Extract<SocketAddress, { family: "unix" }> {
    return { family: "unix", path: join(this.#directory, "socket") };
  }

  /** Listens for sources; gives where. @throws PostcopyError CANNOT_LISTEN. */
  async listen(options: ListenOptions): Promise<SocketAddress> {
    return await this.#open({ kind: "listen", target: this.local.path, ...options });
  }

  /** Takes connections on the private socket, each of which becomes one to the destination. */
  async connect(options: ConnectOptions): Promise<void> {
    await this.#open({ kind: "connect", path: this.local.path, ...options });
  }

  async #open(task: BridgeTask): Promise<SocketAddress> {
    try {
      const address = await this.#thread.run(task);
      if (address === undefined) throw new Error("a bridge listens nowhere");
      return address;
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  #hear(news: BridgeNews): void {
    switch (news.kind) {
      case "secured":
        this.peer = news.peer;
        this.failure = undefined;
        break;
      case "failed":
        this.failure = new ThreadError(news.error);
        break;
      case "waiting":
        this.#listener.waiting?.();
        break;
      case "warning":
        this.#listener.warn?.(news.message);
        break;
    }
  }

  /** Lets what is under way go out, and ends the thread. */
  async close(): Promise<void> {
    try {
      await this.#thread.run({ kind: "close" });
    } finally {
      this.#end();
    }
  }

  #end(): void {
    this.#thread.end();
    process.off("exit", this.#removeDirectory);
    this.#removeDirectory();
  }

  readonly #removeDirectory = (): void => {
    rmSync(this.#directory, { recursive: true, force: true });
  };
}
