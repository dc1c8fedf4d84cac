/**
 * A thread for tests: runs functions of a module, one after the other, while the test's own thread
 * goes on. What may block for ever (a page fault, a read, a lock) belongs in one.
 *
 *     await using guest = await startThread<typeof GuestMemory>(
 *       import.meta.resolve("../fixtures/guest-memory.ts"),
 *     );
 *     const reading = guest.call("readWord", address);
 *     … serve the fault …
 *     expect(await reading).toBe(7);
 *
 * Arguments and results are plain data. The functions of a thread keep their module's state.
 */
import { withDeadline } from "./deadline.ts";

type Functions = Record<string, unknown>;
type Call = (...values: never[]) => unknown;
type ParametersOf<F> = F extends Call ? Parameters<F> : never;
type ResultOf<F> = F extends Call ? Awaited<ReturnType<F>> : never;

/** What crosses to the worker and back. */
export interface ThreadOrder {
  module: string;
  name: string;
  values: unknown[];
}

export type ThreadAnswer =
  { kind: "ready" } | { kind: "done"; result: unknown } | { kind: "failed"; error: ThreadFailure };

/** An error as it was thrown in the thread. */
export interface ThreadFailure {
  name: string;
  message: string;
  /** Of a PostcopyError or SyscallError. */
  code: string | undefined;
  stack: string | undefined;
}

/** How long a call may take: far more than any does. */
const CALL_LIMIT_MS = 15_000;

/** How long a thread may still run when its test is over. */
const LAST_WAIT_MS = 1_000;

/** An error that a function of the thread threw. */
export class ThreadCallError extends Error {
  readonly code: string | undefined;

  constructor({ name, message, code, stack }: ThreadFailure) {
    super(message);
    this.name = name;
    this.code = code;
    if (stack !== undefined) this.stack = stack;
  }
}

export class TestThread<Module extends Functions> implements AsyncDisposable {
  readonly #module: string;
  readonly #worker: Worker;
  #waiting = Promise.withResolvers<unknown>();
  #busy = true;

  constructor(module: string) {
    this.#module = module;
    this.#worker = new Worker(new URL("../fixtures/thread-worker.ts", import.meta.url).href);
    this.#worker.onmessage = ({ data }: MessageEvent<ThreadAnswer>) => this.#take(data);
    this.#worker.onerror = ({ message }) => this.#waiting.reject(new Error(message));
  }

  /** Waits until the thread listens. */
  async ready(): Promise<void> {
    await withDeadline(this.#waiting.promise, `a thread for ${this.#module}`);
  }

  /** Runs a function of the module; one at a time. */
  call<Name extends keyof Module & string>(
    name: Name,
    ...values: ParametersOf<Module[Name]>
  ): Promise<ResultOf<Module[Name]>> {
    if (this.#busy) throw new Error(`the thread still runs something else than ${name}`);
    this.#busy = true;
    this.#waiting = Promise.withResolvers<unknown>();
    const order: ThreadOrder = { module: this.#module, name, values };
    this.#worker.postMessage(order);
    const what = `${name}() in a thread`;
    return withDeadline(this.#waiting.promise, what, CALL_LIMIT_MS) as Promise<
      ResultOf<Module[Name]>
    >;
  }

  #take(answer: ThreadAnswer): void {
    this.#busy = false;
    if (answer.kind === "failed") this.#waiting.reject(new ThreadCallError(answer.error));
    else this.#waiting.resolve(answer.kind === "done" ? answer.result : undefined);
  }

  /**
   * Ends the thread. One that still runs something, after a test that failed, is waited for a
   * little and then left alone: terminating it could take for ever.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#busy) {
      const settled = this.#waiting.promise.then(
        () => undefined,
        () => undefined,
      );
      await Promise.race([settled, Bun.sleep(LAST_WAIT_MS)]);
    }
    if (this.#busy) this.#worker.unref();
    else this.#worker.terminate();
  }
}

/** Starts a thread for the functions of a module, given by its resolved address. */
export async function startThread<Module extends Functions>(
  module: string,
): Promise<TestThread<Module>> {
  const thread = new TestThread<Module>(module);
  await thread.ready();
  return thread;
}
