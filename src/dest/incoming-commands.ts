/**
 * What a command of the incoming stream does, up to RUN, each only where QEMU's order of them lets it come
 * (state.ts). Commands come on the main stream and in the package.
 */
import { commandName } from "../stream/command.ts";
import type { Command } from "../stream/command.ts";
import { isAheadPing } from "../stream/hello.ts";
import { takesSwitchoverAck } from "../stream/machine-type.ts";
import { StreamError } from "../util/errors.ts";
import { startGuest } from "./completion.ts";
import type { IncomingContext } from "./context.ts";
import { settleIdentity } from "./identity.ts";
import type { IncomingMemory } from "./incoming-memory.ts";
import { returnPathIsOpen } from "./refusal.ts";
import { WORD } from "./shared.ts";
import type { SourceHello } from "./source-hello.ts";
import { StateMachine } from "./state.ts";

export class IncomingCommands {
  readonly #context: IncomingContext;
  readonly #source: SourceHello;
  readonly #memory: IncomingMemory;
  #state = new StateMachine();

  constructor(context: IncomingContext, source: SourceHello, memory: IncomingMemory) {
    this.#context = context;
    this.#source = source;
    this.#memory = memory;
  }

  /** What has come of them. */
  get state(): StateMachine {
    return this.#state;
  }

  get hasRun(): boolean {
    return this.#state.state === "RUNNING";
  }

  /** Another source begins. */
  startOver(): void {
    this.#state = new StateMachine();
  }

  /** A command, with the state checked first. */
  take(command: Command): void {
    this.#state.take(command.kind);
    switch (command.kind) {
      case "openReturnPath":
        Atomics.store(this.#context.shared.control, WORD.returnPathOpen, 1);
        this.#agreeToSwitchover();
        break;
      case "ping":
        this.#answerPing(command.value);
        break;
      case "postcopyAdvise":
        this.#memory.advise(command.ram);
        break;
      case "postcopyRamDiscard":
        this.#memory.discard(command.block, command.ranges);
        break;
      case "postcopyListen":
        this.#memory.listen();
        break;
      case "postcopyRun":
        startGuest(this.#context, this.#source);
        break;
      case "switchoverStart":
        break;
      default: {
        const name = commandName(command.kind);
        throw new StreamError("WRONG_STATE", `${name} came where it is not understood`);
      }
    }
  }

  /** A QEMU with `switchover-ack` does not switch before it has this, even if no device needs it. */
  #agreeToSwitchover(): void {
    if (!takesSwitchoverAck(this.#memory.machine)) return;
    this.#context.returnPath.send({ kind: "switchoverAck" });
  }

  #answerPing(value: number): void {
    if (!returnPathIsOpen(this.#context.shared)) {
      throw new StreamError("WRONG_STATE", "PING came before the return path was opened");
    }
    const kind = this.#source.take(value);
    if (kind === "chosen") {
      settleIdentity(this.#context, this.#source.chosen, this.#source.told);
      this.#context.emit({ kind: "channels", ...this.#source.enforce() });
      this.#memory.choose(this.#source.chosen);
      this.#memory.prepare();
    }
    // What was sent ahead of the switchover is done, then, and not only read.
    if (isAheadPing(value)) this.#memory.forgetDiscarded();
    const answer = kind === "hello" ? this.#source.answer : value;
    this.#context.returnPath.send({ kind: "pong", value: answer });
  }
}
