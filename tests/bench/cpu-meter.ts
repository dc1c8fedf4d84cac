/** CPU time that programs use while something lasts, user and system, of all their threads. */
import { SyscallError } from "../../syscalls/error.ts";
import { processCpuNs } from "../../syscalls/process.ts";

/** Between two looks: what a program uses after the last one before its end is not counted. */
const LOOK_MS = 5;

export class CpuMeter implements Disposable {
  readonly #pids: readonly number[];
  readonly #began: readonly number[];
  readonly #latest: number[];
  readonly #timer: ReturnType<typeof setInterval>;

  /** Begins now, for programs that run. */
  constructor(...pids: readonly number[]) {
    this.#pids = pids;
    this.#began = pids.map(processCpuNs);
    this.#latest = [...this.#began];
    // One that is done may be gone before anybody is told.
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  /** Seconds of all of them together since the beginning. */
  seconds(): number {
    this.#look();
    let ns = 0;
    for (const [index, latest] of this.#latest.entries()) ns += latest - (this.#began[index] ?? 0);
    return ns / 1e9;
  }

  #look(): void {
    for (const [index, pid] of this.#pids.entries()) {
      try {
        this.#latest[index] = processCpuNs(pid);
      } catch (thrown) {
        if (!(thrown instanceof SyscallError)) throw thrown;
      }
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
