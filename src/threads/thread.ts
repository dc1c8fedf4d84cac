/**
 * A thread of the program: a Bun Worker that is given plain data, blocks as it likes in one
 * function (or, like that of TLS, never), and reports by message. Main never blocks: it awaits promises.
 *
 * A worker that may sit in a system call is never terminated: it is told to stop through shared
 * memory and the stop descriptor, and terminated when it has said that it is done. One that ends by
 * itself (an error outside of its task, process.exit, no memory left) fails its task: whoever waits
 * for it would wait for ever. One that serves without a task, as that of TLS, is watched by `lost`.
 */
import { unmapThreadMemory } from "../../syscalls/memory.ts";
import { PostcopyError, errorRecord } from "../util/errors.ts";
import type { ErrorRecord } from "../util/errors.ts";

/** Worker entry points by name; the build lists the same files. */
const ENTRIES = {
  migration: () => new URL("./migration.worker.ts", import.meta.url),
  "return-path": () => new URL("./return-path.worker.ts", import.meta.url),
  handover: () => new URL("./handover.worker.ts", import.meta.url),
  incoming: () => new URL("./incoming.worker.ts", import.meta.url),
  listen: () => new URL("./listen.worker.ts", import.meta.url),
  fault: () => new URL("./fault.worker.ts", import.meta.url),
  pushed: () => new URL("./pushed.worker.ts", import.meta.url),
  push: () => new URL("./push.worker.ts", import.meta.url),
  multifd: () => new URL("./multifd.worker.ts", import.meta.url),
  index: () => new URL("./index.worker.ts", import.meta.url),
  analyze: () => new URL("./analyze.worker.ts", import.meta.url),
  stress: () => new URL("./stress.worker.ts", import.meta.url),
  watch: () => new URL("./watch.worker.ts", import.meta.url),
  hold: () => new URL("./hold.worker.ts", import.meta.url),
  tls: () => new URL("./tls.worker.ts", import.meta.url),
  echo: () => new URL("./echo.worker.ts", import.meta.url),
} as const;

export type ThreadName = keyof typeof ENTRIES;

/** What a worker is sent. */
type ToWorker<Task> = { kind: "task"; task: Task } | { kind: "end" };

/** What a worker sends. */
type FromWorker =
  | { kind: "ready" }
  | { kind: "ended" }
  | { kind: "news"; news: unknown }
  | { kind: "done"; result: unknown }
  | { kind: "failed"; error: ErrorRecord };

/** How long a worker may take to load, on a host that is very busy; a missing file never answers. */
const READY_TIMEOUT_MS = 60_000;

/** An error that a worker reported, with its code, hint and causes. */
export class ThreadError extends PostcopyError {
  readonly #exitCode: number;

  constructor(record: ErrorRecord) {
    const cause = record.cause === undefined ? undefined : new ThreadError(record.cause);
    super(record.code, record.message, {
      ...(cause === undefined ? {} : { cause }),
      ...(record.hint === undefined ? {} : { hint: record.hint }),
    });
    this.name = record.name;
    this.#exitCode = record.exitCode;
    if (record.stack !== undefined) this.stack = record.stack;
  }

  override get exitCode(): number {
    return this.#exitCode;
  }
}

/** Main's side of a worker. */
export class Thread<Task, News, Result> {
  readonly name: ThreadName;
  readonly #worker: Worker;
  readonly #news: (news: News) => void;
  readonly #ready = Promise.withResolvers<void>();
  #task = Promise.withResolvers<Result>();
  #busy = false;
  /** Why no further task can be given to it. */
  #ended: Error | undefined;
  #toldToEnd = false;
  readonly #lost = Promise.withResolvers<Error>();

  /** Starts loading the worker; `news` is called for each message it sends while at work. */
  constructor(name: ThreadName, news: (news: News) => void) {
    this.name = name;
    this.#news = news;
    this.#worker = new Worker(ENTRIES[name]().href);
    this.#worker.onmessage = (event: MessageEvent<FromWorker>) => this.#take(event.data);
    this.#worker.onerror = (event) => this.#fail(new Error(`${name}: ${event.message}`));
    this.#worker.addEventListener("close", () => this.#close());
    const timer = setTimeout(() => {
      const what = `The ${name} thread did not start within ${READY_TIMEOUT_MS / 1000} s`;
      this.#fail(new PostcopyError("THREAD_FAILED", what, { hint: "this host may be too busy" }));
    }, READY_TIMEOUT_MS);
    timer.unref();
    this.#ready.promise.then(
      () => clearTimeout(timer),
      () => clearTimeout(timer),
    );
  }

  /** Gives the worker its next task; resolves with its result, rejects with its error. */
  run(task: Task): Promise<Result> {
    if (this.#busy) throw new Error(`the ${this.name} thread is still at work`);
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    this.#busy = true;
    this.#task = Promise.withResolvers<Result>();
    this.#ready.promise.then(
      () => this.#tell({ kind: "task", task }),
      (error: unknown) => {
        // It never was ready, so it was given nothing.
        this.#busy = false;
        this.#task.reject(error);
      },
    );
    return this.#task.promise;
  }

  /** Whether it has a task that is not done. */
  get busy(): boolean {
    return this.#busy;
  }

  /** Resolves with why when the worker has ended by itself, also one that has no task just now. */
  get lost(): Promise<Error> {
    return this.#lost.promise;
  }

  /** Ends an idle worker: it gives back what it has mapped, and is terminated. */
  end(): void {
    if (this.#busy) return;
    this.#toldToEnd = true;
    this.#ready.promise.then(
      () => this.#tell({ kind: "end" }),
      () => this.#worker.terminate(),
    );
  }

  #tell(message: ToWorker<Task>): void {
    this.#worker.postMessage(message);
  }

  #take(message: FromWorker): void {
    switch (message.kind) {
      case "ready":
        this.#ready.resolve();
        break;
      case "ended":
        this.#worker.terminate();
        break;
      case "news":
        this.#news(message.news as News);
        break;
      case "done":
        this.#busy = false;
        this.#task.resolve(message.result as Result);
        break;
      case "failed":
        this.#busy = false;
        this.#task.reject(new ThreadError(message.error));
        break;
    }
  }

  /** Whatever went wrong, a worker that has a task may sit in a system call: it stays busy. */
  #fail(error: Error): void {
    this.#ended ??= error;
    this.#ready.reject(error);
    if (this.#busy) this.#task.reject(error);
  }

  /** The worker is no more: it is at nothing, and will never be. */
  #close(): void {
    const why = this.#ended ?? new Error(`the ${this.name} thread ended by itself`);
    this.#fail(why);
    this.#busy = false;
    if (!this.#toldToEnd) this.#lost.resolve(why);
  }
}

/**
 * The worker's side: runs `work` for each task. `tell` sends news while `work` blocks, or later from
 * an event. Called once, at the top of a worker file.
 */
export function serveThread<Task, News, Result>(
  work: (task: Task, tell: (news: News) => void) => Result | Promise<Result>,
): void {
  const send = (message: FromWorker): void => postMessage(message);
  const take = async ({ data }: MessageEvent<ToWorker<Task>>): Promise<void> => {
    if (data.kind === "end") {
      unmapThreadMemory();
      send({ kind: "ended" });
      return;
    }
    try {
      const result = await work(data.task, (news) => send({ kind: "news", news }));
      send({ kind: "done", result });
    } catch (thrown) {
      send({ kind: "failed", error: errorRecord(thrown) });
    }
  };
  addEventListener("message", (event) => void take(event as MessageEvent<ToWorker<Task>>));
  send({ kind: "ready" });
}
