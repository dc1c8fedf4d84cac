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
import { keepsUserfault, userfaultIdentity } from "../guests/uffd/vmm-process.ts";
import type { Output } from "./common.ts";

/**
 * Signals that end a process by default and that nothing else here answers (Ctrl-\ sends the first).
 * What the kernel raises for a fault of this process's own (SIGSYS and SIGTRAP too) cannot be answered in
 * JavaScript; of SIGSTKFLT and those of real time Bun tells nobody.
 */
const OTHER_SIGNALS = [
  ...(["SIGQUIT", "SIGABRT", "SIGALRM", "SIGVTALRM"] as const),
  ...(["SIGXCPU", "SIGPROF", "SIGIO"] as const),
] as const;

/** What --on-failure may be. */
export const ON_FAILURE = ["kill", "freeze"] as const;
export type OnFailure = (typeof ON_FAILURE)[number];

export interface FateOptions {
  vmm: Vmm;
  onFailure: OnFailure;
  /** How another process goes on with a VMM of which the userfaultfd is kept. */
  successor: string | undefined;
  /** Whether somebody keeps it now. */
  isKept: () => boolean;
  output: Output;
  /** The guest's memory as far as it is known. */
  memory: () => GuestMemory | undefined;
}

export class VmmFate {
  readonly #options: FateOptions;
  /** Of its userfaultfd, which may be closed here when it is asked for. */
  readonly #identity: number;
  /** No fault can have waited for longer. */
  readonly #sinceNs = monotonicNs();
  #decided = false;
  #isOver = false;
  /** A process that ends in any other way, by a mistake of its own or a second Ctrl-C. */
  readonly #atExit = (): void => this.fail("this process ends");
  /** As a shell says that a signal ended a process. */
  readonly #atSignal = (_name: NodeJS.Signals, number: number): void => process.exit(128 + number);

  constructor(options: FateOptions) {
    this.#options = options;
    const { pid, handover } = options.vmm;
    this.#identity = userfaultIdentity(handover.userfaultFd);
    if (keepsUserfault(pid, this.#identity) === false && options.successor === undefined) {
      const message =
        "The VMM has closed its own userfaultfd: should this process be killed, what is missing of " +
        "its memory becomes zeros (--keep-fd keeps a duplicate)";
      options.output.warn("VMM_UNPROTECTED", message);
    }
    process.on("exit", this.#atExit);
    for (const name of OTHER_SIGNALS) process.on(name, this.#atSignal);
  }

  /** It has ended by itself. */
  end(): void {
    if (this.#decided) return;
    this.#isOver = true;
    this.settle();
  }

  /** All of its memory is there: nothing is to be decided any more. */
  settle(): void {
    this.#decided = true;
    process.off("exit", this.#atExit);
    for (const name of OTHER_SIGNALS) process.off(name, this.#atSignal);
  }

  /** Its memory cannot be filled any more, because of `cause`. */
  fail(cause: string): void {
    if (this.#decided) return;
    this.settle();
    const { vmm, memory } = this.#options;
    const waiting = describeWaiting(memory(), vmm.handover.regions, monotonicNs(), this.#sinceNs);
    const what = `The memory of the VMM (process ${vmm.pid}) is filled no more: ${cause}; ${waiting}`;
    const isKept = this.#options.isKept();
    if (this.#mayFreeze(isKept)) this.#freeze(what, isKept);
    else this.#kill(what);
  }

  /** It has ended, or been killed: what is kept of it is of no use to anybody. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** One in another pid namespace cannot be reached from here. */
  get #mayKill(): boolean {
    const { pid, processFd } = this.#options.vmm;
    return pid !== 0 && processFd >= 0;
  }

  /**
   * With the last userfaultfd its memory would be its own again, and what is missing zeros. It may have
   * closed its own since the handover; what cannot be seen is not there.
   */
  #mayFreeze(isKept: boolean): boolean {
    if (!this.#mayKill) return true;
    const { vmm, onFailure } = this.#options;
    return onFailure === "freeze" && (isKept || keepsUserfault(vmm.pid, this.#identity) === true);
  }

  #freeze(what: string, isKept: boolean): void {
    const { vmm, successor, output } = this.#options;
    const end = this.#mayKill
      ? `End it with: kill -KILL ${vmm.pid}`
      : "It is in no pid namespace of this process, and has to be ended there";
    const isGoneOnWith = isKept && successor !== undefined;
    const way = isGoneOnWith ? `; what is missing is filled by: ${successor}` : "";
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
