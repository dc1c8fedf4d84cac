/** The unix socket of a QEMU monitor: text goes out as the socket takes it, and comes in as lines. */
import { accessSync, constants, statSync } from "node:fs";
import { peerProcess } from "../../syscalls/peer-process.ts";
import { PostcopyError } from "../util/errors.ts";
import { LineFramer } from "./lines.ts";

/** Longest line of a monitor; descriptions of a machine take some hundreds of KiB. */
const LINE_CHARACTERS_MAX = 16 * 1024 * 1024;

/** A monitor that is not there, does not speak, or went away. */
export class MonitorError extends PostcopyError {}

/** Who is told what comes of a monitor. */
export interface MonitorListener {
  line: (text: string) => void;
  /** Nothing more will come, or nothing that can be trusted. */
  failed: (error: MonitorError) => void;
}

export class MonitorSocket {
  readonly path: string;
  readonly #listener: MonitorListener;
  readonly #decoder = new TextDecoder();
  readonly #lines = new LineFramer(LINE_CHARACTERS_MAX);
  #socket: Bun.Socket | undefined;
  /** What the socket did not take yet. */
  #unsent: Uint8Array = new Uint8Array(0);
  #ended = false;

  constructor(path: string, listener: MonitorListener) {
    this.path = path;
    this.#listener = listener;
  }

  /** Connects. @throws MonitorError when nobody listens there. */
  async open(): Promise<void> {
    const closed = (): void => {
      this.#listener.failed(this.error("MONITOR_CLOSED", "was closed by QEMU"));
    };
    try {
      this.#socket = await Bun.connect({
        unix: this.path,
        socket: {
          data: (_socket, bytes) => this.#receive(this.#decoder.decode(bytes, { stream: true })),
          drain: () => this.#flush(),
          close: closed,
          end: closed,
          error: closed,
        },
      });
    } catch (cause) {
      throw new MonitorError("NO_MONITOR", `There is no QEMU monitor at ${this.path}`, {
        cause,
        hint: absenceHint(this.path),
      });
    }
  }

  send(text: string): void {
    this.#unsent = Buffer.concat([this.#unsent, Buffer.from(text)]);
    this.#flush();
  }

  /** Hangs up: nothing that comes is taken any more. */
  end(): void {
    this.#ended = true;
    this.#socket?.end();
  }

  /** The process that listens at the socket; 0 where it cannot be seen from here. */
  get process(): number {
    // Bun has it, and does not say so in its types.
    const fd: unknown = this.#socket === undefined ? -1 : Reflect.get(this.#socket, "fd");
    return typeof fd === "number" && fd >= 0 ? peerProcess(fd) : 0;
  }

  /** An error that says which monitor it was. */
  error(code: string, what: string, details: { hint?: string } = {}): MonitorError {
    return new MonitorError(code, `The QEMU monitor at ${this.path} ${what}`, details);
  }

  /** A socket takes what fits into its buffer, and calls again when there is room. */
  #flush(): void {
    if (this.#unsent.length === 0) return;
    const sent = this.#socket?.write(this.#unsent) ?? 0;
    // -1: it is closed, which its own callback tells.
    this.#unsent = this.#unsent.subarray(Math.max(0, sent));
  }

  #receive(text: string): void {
    const lines = this.#ended ? [] : this.#lines.take(text);
    if (lines === undefined) {
      this.#listener.failed(this.error("MONITOR_ANSWER", "sends a line without end"));
      this.end();
      return;
    }
    for (const line of lines) this.#listener.line(line);
  }
}

/** What may be the matter with a path at which nobody answers. */
function absenceHint(path: string): string {
  let found: ReturnType<typeof statSync> | undefined;
  try {
    found = statSync(path, { throwIfNoEntry: false });
  } catch {
    return "it cannot be reached by this user, or a part of it is no directory";
  }
  if (found === undefined) {
    return "start QEMU with -qmp unix:PATH,server=on,wait=off and name that PATH";
  }
  if (!found.isSocket())
    return "it is there, and no socket: name the PATH that -qmp unix: was given";
  try {
    accessSync(path, constants.W_OK);
  } catch {
    return "it belongs to another user";
  }
  return "nobody listens there any more: that QEMU has ended";
}
