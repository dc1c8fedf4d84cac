/**
 * A client of QEMU's machine protocol (QMP) for tests: JSON objects, one a line, over a unix
 * socket. The server greets, we negotiate capabilities, then every command carries an `id` that
 * its answer repeats, and events come in between (QEMU, docs/interop/qmp-spec).
 */
import { DEFAULT_WAIT_MS, withDeadline } from "./deadline.ts";

/** How long QEMU may take to answer one command. */
const ANSWER_LIMIT_MS = 20_000;

export interface QmpEvent {
  event: string;
  data: Record<string, unknown>;
  /** When QEMU sent it, by its own clock, in milliseconds since 1970. */
  timeMs: number;
}

/** QEMU refused a command; `errorClass` is its machine-readable half. */
export class QmpCommandError extends Error {
  override readonly name = "QmpCommandError";
  readonly errorClass: string;

  constructor(command: string, errorClass: string, description: string) {
    super(`QMP ${command}: ${description}`);
    this.errorClass = errorClass;
  }
}

interface QmpMessage {
  QMP?: { version: unknown; capabilities: string[] };
  id?: number;
  return?: unknown;
  error?: { class: string; desc: string };
  event?: string;
  data?: Record<string, unknown>;
  timestamp?: { seconds: number; microseconds: number };
}

interface PendingCommand {
  name: string;
  resolve(result: unknown): void;
  reject(error: Error): void;
}

export class QmpClient implements AsyncDisposable {
  /** Every event since the connection was made, oldest first. */
  readonly events: QmpEvent[] = [];
  readonly #path: string;
  readonly #pending = new Map<number, PendingCommand>();
  readonly #greeting = Promise.withResolvers<void>();
  #socket: Bun.Socket | undefined;
  #unparsed = "";
  #lastId = 0;
  #closed = false;
  #eventArrived = Promise.withResolvers<void>();

  private constructor(path: string) {
    this.#path = path;
  }

  /** Connects to the monitor at the unix socket `path` and leaves its negotiation mode. */
  static async connect(path: string, options: { outOfBand?: boolean } = {}): Promise<QmpClient> {
    const client = new QmpClient(path);
    const decoder = new TextDecoder();
    client.#socket = await Bun.connect({
      unix: path,
      socket: {
        data: (_socket, bytes) => client.#receive(decoder.decode(bytes, { stream: true })),
        close: () => client.#end(),
        error: () => client.#end(),
      },
    });
    await withDeadline(client.#greeting.promise, `the greeting of the monitor at ${path}`);
    const enable = options.outOfBand === true ? ["oob"] : [];
    await client.execute("qmp_capabilities", enable.length === 0 ? {} : { enable });
    return client;
  }

  /**
   * Runs one command and gives its result. `outOfBand` runs it beside the others (`exec-oob`),
   * which only a connection made with `outOfBand` may do.
   */
  async execute<T = unknown>(
    command: string,
    parameters: Record<string, unknown> = {},
    options: { outOfBand?: boolean; limitMs?: number } = {},
  ): Promise<T> {
    if (this.#closed || this.#socket === undefined) throw this.#gone(command);
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#pending.set(id, { name: command, resolve, reject });
    const verb = options.outOfBand === true ? "exec-oob" : "execute";
    this.#socket.write(`${JSON.stringify({ [verb]: command, arguments: parameters, id })}\n`);
    const limitMs = options.limitMs ?? ANSWER_LIMIT_MS;
    try {
      return (await withDeadline(promise, `QEMU's answer to ${command}`, limitMs)) as T;
    } finally {
      this.#pending.delete(id);
    }
  }

  /** Runs one command of the human monitor and gives its text. */
  async human(line: string): Promise<string> {
    return await this.execute<string>("human-monitor-command", { "command-line": line });
  }

  /**
   * The first event `name` that `accept` agrees to, counting those that came before the call, so
   * that none is missed which a fast machine sends early. `from` leaves out the first ones of
   * `events`, for a test that waits for the same thing a second time.
   */
  async waitForEvent(
    name: string,
    options: { accept?: (event: QmpEvent) => boolean; from?: number; limitMs?: number } = {},
  ): Promise<QmpEvent> {
    const { accept = () => true, from = 0, limitMs = DEFAULT_WAIT_MS } = options;
    const search = async (): Promise<QmpEvent> => {
      for (let index = from; ;) {
        for (; index < this.events.length; index++) {
          const event = this.events[index];
          if (event?.event === name && accept(event)) return event;
        }
        if (this.#closed) throw this.#gone(`event ${name}`);
        await this.#eventArrived.promise;
      }
    };
    const seen = (): string => this.events.map((event) => JSON.stringify(event)).join("\n");
    return await withDeadline(search(), `QMP event ${name}; seen were:\n${seen()}`, limitMs);
  }

  /** Closes the connection; commands that are still out fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket?.end();
    this.#end();
  }

  #gone(what: string): Error {
    return new Error(`QMP ${what}: the monitor at ${this.#path} has closed the connection`);
  }

  #receive(text: string): void {
    const lines = (this.#unparsed + text).split("\n");
    this.#unparsed = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() !== "") this.#handle(JSON.parse(line) as QmpMessage);
    }
  }

  #handle(message: QmpMessage): void {
    if (message.QMP !== undefined) {
      this.#greeting.resolve();
    } else if (message.event !== undefined) {
      const { seconds = 0, microseconds = 0 } = message.timestamp ?? {};
      const timeMs = seconds * 1000 + microseconds / 1000;
      this.events.push({ event: message.event, data: message.data ?? {}, timeMs });
      this.#wakeEventWaiters();
    } else {
      const pending = message.id === undefined ? undefined : this.#pending.get(message.id);
      if (pending === undefined) return;
      if (message.error === undefined) pending.resolve(message.return);
      else {
        const { class: errorClass, desc } = message.error;
        pending.reject(new QmpCommandError(pending.name, errorClass, desc));
      }
    }
  }

  #wakeEventWaiters(): void {
    this.#eventArrived.resolve();
    this.#eventArrived = Promise.withResolvers<void>();
  }

  #end(): void {
    this.#closed = true;
    this.#greeting.reject(this.#gone("greeting"));
    for (const pending of this.#pending.values()) pending.reject(this.#gone(pending.name));
    this.#wakeEventWaiters();
  }
}
