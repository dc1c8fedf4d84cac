/**
 * What becomes of a VMM whose memory cannot be filled any more: the one place where that is decided.
 * From its handover on a VMM depends on this process: however this one ends, short of SIGKILL, it is
 * said which pages are waited for and why they will not come, and then the VMM is killed, or left
 * where it stands. It is never let go on with pages that nobody filled.
 */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { killProcess } from "../../syscalls/pidfd.ts";
import { monotonicNs } from "../../syscalls/process.ts";
import type { GuestMemory } from "../dest/context.ts";
import { describeWaiting } from "../guests/uffd/waiting.ts";
import type { Vmm } from "../guests/uffd/vmm.ts";
import { keepsUserfault } from "../guests/uffd/vmm-process.ts";
import type { Output } from "./common.ts";

/** What --on-failure may be. */
export const ON_FAILURE = ["kill", "freeze"] as const;
export type OnFailure = (typeof ON_FAILURE)[number];

export interface FateOptions {
  vmm: Vmm;
  onFailure: OnFailure;
  /** Somebody keeps the userfaultfd; how another process goes on with it. */
  successor: string | undefined;
  output: Output;
  /** The guest's memory as far as it is known. */
  memory: () => GuestMemory | undefined;
}

export class VmmFate {
  readonly #options: FateOptions;
  readonly #keepsOwn: boolean | undefined;
  /** No fault can have waited for longer. */
  readonly #sinceNs = monotonicNs();
  #decided = false;
  #isOver = false;
  /** A process that ends in any other way, by a mistake of its own or a second Ctrl-C. */
  readonly #atExit = (): void => this.fail("this process ends");

  constructor(options: FateOptions) {
    this.#options = options;
    this.#keepsOwn = keepsUserfault(options.vmm.pid);
    if (this.#keepsOwn === false && options.successor === undefined) {
      const message =
        "The VMM has closed its own userfaultfd: should this process be killed, what is missing of " +
        "its memory becomes zeros (--keep-fd keeps a duplicate)";
      options.output.warn("VMM_UNPROTECTED", message);
    }
    process.on("exit", this.#atExit);
  }

  /** It has ended by itself. */
  end(): void {
    this.#isOver = true;
    this.settle();
  }

  /** All of its memory is there: nothing is to be decided any more. */
  settle(): void {
    this.#decided = true;
    process.off("exit", this.#atExit);
  }

  /** Its memory cannot be filled any more, because of `cause`. */
  fail(cause: string): void {
    if (this.#decided) return;
    this.settle();
    const { vmm, memory } = this.#options;
    const waiting = describeWaiting(memory(), vmm.handover.regions, monotonicNs(), this.#sinceNs);
    const what = `The memory of the VMM (process ${vmm.pid}) is filled no more: ${cause}; ${waiting}`;
    if (this.#mayFreeze()) this.#freeze(what);
    else this.#kill(what);
  }

  /** It has ended, or been killed: what is kept of it is of no use to anybody. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** With the last userfaultfd its memory would be its own again, and what is missing zeros. */
  #mayFreeze(): boolean {
    const { vmm, onFailure, successor } = this.#options;
    if (vmm.processFd < 0) return true;
    return onFailure === "freeze" && (successor !== undefined || this.#keepsOwn !== false);
  }

  #freeze(what: string): void {
    const { vmm, successor, output } = this.#options;
    const end =
      vmm.processFd < 0
        ? "It is in no pid namespace of this process, and has to be ended there"
        : `End it with: kill -KILL ${vmm.pid}`;
    const way = successor === undefined ? "" : `; what is missing is filled by: ${successor}`;
    const message =
      `${what}. It is left as it is: whatever touches a page that is not there stands there for ` +
      `ever. ${end}${way}`;
    output.warn("VMM_FROZEN", message);
  }

  #kill(what: string): void {
    const { vmm, output } = this.#options;
    // Said first: whoever sees the VMM end finds why.
    output.warn("VMM_KILLED", `${what}. It is killed`);
    try {
      killProcess(vmm.processFd);
      this.#isOver = true;
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      output.warn("VMM_FROZEN", `It stands, as it could not be killed: ${error.message}`);
    }
  }

  /** Gives back the descriptor of the VMM's process. */
  close(): void {
    const { processFd } = this.#options.vmm;
    if (processFd >= 0) closeDescriptor(processFd);
  }
}
