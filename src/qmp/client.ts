/**
 * A client of QEMU's machine protocol over a unix socket. The monitor greets, we leave its
 * negotiation mode, then every command carries an id that its answer repeats, and events come in
 * between. It lives on the main thread and never blocks it.
 */
import * as z from "zod";
import { PostcopyError } from "../util/errors.ts";
import { greetingSchema, messageSchema } from "./messages.ts";
import type { Message } from "./messages.ts";
import { MonitorSocket } from "./monitor-socket.ts";
import type { MonitorError } from "./monitor-socket.ts";

/** How long a monitor may take to greet: one that serves another client says nothing at all. */
const GREETING_TIMEOUT_MS = 5000;
/** How long QEMU may take to answer a command; its main loop may be busy with a migration. */
const ANSWER_TIMEOUT_MS = 30_000;
const NOT_QMP_HINT = "a monitor made with -qmp speaks QMP; one made with -monitor is for people";

/** QEMU refused a command, in its own words. */
export class QmpError extends PostcopyError {
  /** QEMU's machine-readable half: "GenericError", "CommandNotFound". */
  readonly errorClass: string;

  constructor(command: string, errorClass: string, description: string) {
    super("QEMU_REFUSED", `QEMU refused ${command}: ${description}`);
    this.errorClass = errorClass;
  }
}

export interface QmpEvent {
  name: string;
  data: Readonly<Record<string, unknown>>;
  /** When QEMU sent it, by its wall clock, in milliseconds since 1970. */
  timeMs: number;
}

/** How a connection is made. */
export interface ConnectOptions {
  /** Ask for out-of-band execution, where this QEMU offers it. */
  outOfBand?: boolean;
  /** Called with each event, from the very first on. */
  onEvent?: (event: QmpEvent) => void;
  greetingTimeoutMs?: number;
}

/** How a command is run. */
export interface ExecuteOptions {
  /** Beside the other commands (`exec-oob`), which the connection must have asked for. */
  outOfBand?: boolean;
  timeoutMs?: number;
}

interface Pending {
  command: string;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

export class QmpClient {
  /** The release of QEMU: "7.2.22". */
  version = "";
  /** Whether commands may be run beside others. */
  outOfBand = false;
  readonly #pending = new Map<number, Pending>();
  readonly #greeting = Promise.withResolvers<unknown>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #socket: MonitorSocket;
  #lastId = 0;
  #failure: Error | undefined;

  private constructor(path: string) {
    this.#socket = new MonitorSocket(path, {
      line: (text) => this.#take(text),
      failed: (error) => this.#fail(error),
    });
    this.#greeting.promise.catch(() => {
      // Whoever connects awaits it; a failure after that is told to the commands.
    });
  }

  /**
   * Connects to the monitor at a unix socket and makes it ready for commands.
   * @throws MonitorError when nobody listens there, or it is no monitor, or a busy one.
   */
  static async connect(path: string, options: ConnectOptions = {}): Promise<QmpClient> {
    const client = new QmpClient(path);
    if (options.onEvent !== undefined) client.onEvent(options.onEvent);
    try {
      await client.#socket.open();
      const timeoutMs = options.greetingTimeoutMs ?? GREETING_TIMEOUT_MS;
      const greeting = await client.#greet(timeoutMs);
      client.version = versionText(greeting);
      const enable = options.outOfBand === true && offersOutOfBand(greeting) ? ["oob"] : [];
      client.outOfBand = enable.length > 0;
      const words = enable.length === 0 ? {} : { enable };
      await client.execute("qmp_capabilities", words, z.unknown(), { timeoutMs });
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  async #greet(timeoutMs: number): Promise<z.infer<typeof greetingSchema>> {
    const silent = this.#socket.error("MONITOR_SILENT", "does not greet", {
      hint: "it serves one client at a time: another program may be connected to it",
    });
    const text = await withTimeout(this.#greeting.promise, timeoutMs, silent);
    const parsed = greetingSchema.safeParse(text);
    if (parsed.success) return parsed.data;
    throw this.#socket.error("NO_MONITOR", "is not a QMP monitor", { hint: NOT_QMP_HINT });
  }

  /**
   * Runs one command and gives its result, checked by `schema`.
   * @throws QmpError when QEMU refuses, MonitorError when it does not answer.
   */
  async execute<Result>(
    command: string,
    parameters: Readonly<Record<string, unknown>>,
    schema: z.ZodType<Result, unknown>,
    options: ExecuteOptions = {},
  ): Promise<Result> {
    if (this.#failure !== undefined) throw this.#failure;
    const id = ++this.#lastId;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    this.#pending.set(id, { command, resolve, reject });
    const verb = options.outOfBand === true ? "exec-oob" : "execute";
    this.#socket.send(`${JSON.stringify({ [verb]: command, arguments: parameters, id })}\n`);
    const timeoutMs = options.timeoutMs ?? ANSWER_TIMEOUT_MS;
    const silent = this.#socket.error(
      "MONITOR_SILENT",
      `did not answer ${command} for ${timeoutMs} ms`,
    );
    try {
      const parsed = schema.safeParse(await withTimeout(promise, timeoutMs, silent));
      if (parsed.success) return parsed.data;
      const what = `gave an answer to ${command} that is not understood`;
      throw this.#socket.error("MONITOR_ANSWER", `${what}: ${z.prettifyError(parsed.error)}`);
    } finally {
      this.#pending.delete(id);
    }
  }

  /** Of its socket. */
  get path(): string {
    return this.#socket.path;
  }

  /** Runs a command whose result says nothing. */
  async run(command: string, parameters: Readonly<Record<string, unknown>> = {}): Promise<void> {
    await this.execute(command, parameters, z.unknown());
  }

  /** Calls `listener` with each event from now on; returns how to end that. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Why the monitor is of no more use; undefined while it is. */
  get failure(): Error | undefined {
    return this.#failure;
  }

  /** The process that listens at the socket; 0 where it cannot be seen from here. */
  get process(): number {
    return this.#socket.process;
  }

  /** Closes the connection; commands that are still out fail. */
  close(): void {
    this.#fail(this.#socket.error("MONITOR_CLOSED", "was closed"));
    this.#socket.end();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#greeting.reject(this.#failure);
    for (const { reject } of this.#pending.values()) reject(this.#failure);
    this.#pending.clear();
  }

  /** Fails everything, and hangs up: what comes from there cannot be trusted. */
  #giveUp(error: MonitorError): void {
    this.#fail(error);
    this.#socket.end();
  }

  #take(line: string): void {
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch {
      this.#giveUp(
        this.#socket.error("NO_MONITOR", "is not a QMP monitor", { hint: NOT_QMP_HINT }),
      );
      return;
    }
    // Only the first line is the greeting; a second resolve does nothing.
    this.#greeting.resolve(json);
    const parsed = messageSchema.safeParse(json);
    if (parsed.success) this.#dispatch(parsed.data);
  }

  #dispatch(message: Message): void {
    if ("event" in message) {
      const { seconds, microseconds } = message.timestamp;
      const timeMs = seconds * 1000 + microseconds / 1000;
      this.#tell({ name: message.event, data: message.data ?? {}, timeMs });
      return;
    }
    const pending = this.#pending.get(message.id ?? 0);
    if (pending === undefined) return;
    if ("error" in message) {
      const { class: errorClass, desc } = message.error;
      pending.reject(new QmpError(pending.command, errorClass, desc));
    } else pending.resolve(message.return);
  }

  #tell(event: QmpEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

function versionText({ QMP }: z.infer<typeof greetingSchema>): string {
  const { major, minor, micro } = QMP.version.qemu;
  return `${major}.${minor}.${micro}`;
}

function offersOutOfBand({ QMP }: z.infer<typeof greetingSchema>): boolean {
  return QMP.capabilities.includes("oob");
}

/** What `promise` gives, or `error` after `timeoutMs`. */
async function withTimeout<Value>(
  promise: Promise<Value>,
  timeoutMs: number,
  error: Error,
): Promise<Value> {
  const { promise: expired, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(error), timeoutMs);
  try {
    return await Promise.race([promise, expired]);
  } finally {
    clearTimeout(timer);
  }
}
