/**
 * Workers that do what a test says, in place of the runtime's: what main's side of a thread does
 * about a worker that fails in a way that no worker of ours does on purpose.
 */
export class FakeWorker {
  /** All that were made since the fake was put in place, in their order. */
  static made: FakeWorker[] = [];
  onmessage: ((event: { data: unknown }) => void) | undefined;
  onerror: ((event: { message: string }) => void) | undefined;
  onclose: (() => void) | undefined;
  readonly tasks: unknown[] = [];
  terminated = false;

  constructor() {
    FakeWorker.made.push(this);
  }

  addEventListener(name: string, listener: () => void): void {
    if (name === "close") this.onclose = listener;
  }

  postMessage(task: unknown): void {
    this.tasks.push(task);
  }

  terminate(): void {
    this.terminated = true;
  }

  /** What the worker sends. */
  say(data: unknown): void {
    this.onmessage?.({ data });
  }
}

/** Puts the fake in place until it is disposed of. */
export function fakeWorkers(): Disposable {
  const real = globalThis.Worker;
  FakeWorker.made = [];
  Object.assign(globalThis, { Worker: FakeWorker });
  return {
    [Symbol.dispose]: () => void Object.assign(globalThis, { Worker: real }),
  };
}
