/** Main's side of the thread of TLS: starts it, keeps what it tells, and ends it. */
import type { SocketAddress } from "../../syscalls/socket.ts";
import { PrivateSocket } from "../channel/private-socket.ts";
import type { BridgeNews, BridgeResult, BridgeTask } from "../tls/bridge.ts";
import { PostcopyError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { Thread, ThreadError } from "./thread.ts";

const DIRECTORY_PREFIX = "postcopy-tls-";

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
  /** Resolves with why when the thread has ended by itself: nothing goes through any more. */
  readonly lost: Promise<PostcopyError>;
  #failure: PostcopyError | undefined;
  readonly #listener: BridgeListener;
  readonly #socket: PrivateSocket;
  readonly #thread: Thread<BridgeTask, BridgeNews, BridgeResult>;

  /** Starts the thread; its direction is said next. @throws UsageError where TMPDIR is too long. */
  constructor(listener: BridgeListener = {}) {
    this.#listener = listener;
    this.#socket = new PrivateSocket(DIRECTORY_PREFIX);
    this.#thread = new Thread("tls", (news) => this.#hear(news));
    this.lost = this.#thread.lost.then((cause) => {
      return (this.#failure = threadFailed(cause));
    });
  }

  /** The private socket: of a destination its threads listen there, of a source the bridge does. */
  get local(): Extract<SocketAddress, { family: "unix" }> {
    return this.#socket.address;
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
    const address = await this.#thread.run(task);
    if (address === undefined) throw new Error("a bridge listens nowhere");
    return address;
  }

  #hear(news: BridgeNews): void {
    switch (news.kind) {
      case "secured":
        this.peer = news.peer;
        this.#failure = undefined;
        break;
      case "failed":
        this.#failure = new ThreadError(news.error);
        break;
      case "waiting":
        this.#listener.waiting?.();
        break;
      case "warning":
        this.#listener.warn?.(news.message);
        break;
    }
  }

  /**
   * Why a connection was last not made, or broke, where TLS knows more than its two ends. The thread
   * has to answer first: all that it has told is then heard, or that it is no more.
   */
  async failure(): Promise<PostcopyError | undefined> {
    await this.#thread.run({ kind: "answer" }).catch((cause: unknown) => {
      this.#failure = threadFailed(cause);
    });
    return this.#failure;
  }

  /** Lets what is under way go out, and ends the thread, also one that opened nothing. What goes wrong changes no outcome. */
  async close(): Promise<void> {
    try {
      await this.#thread.run({ kind: "close" });
    } catch (error) {
      log.warn(`TLS was not ended in order: ${String(error)}`);
    }
    this.#thread.end();
    this.#socket.remove();
  }
}

function threadFailed(cause: unknown): PostcopyError {
  return new PostcopyError("THREAD_FAILED", "TLS failed in this program", { cause });
}
