/**
 * The incoming thread: reads the stream from its first byte, loads precopy pages and device state,
 * and starts the guest (QEMU's `qemu_loadvm_state`). At LISTEN the listen thread takes the stream
 * over, and this one goes on with what is left of the package.
 */
import { DEST } from "../report/counters.ts";
import { commandName, readCommand } from "../stream/command.ts";
import type { Command } from "../stream/command.ts";
import { SECTION } from "../stream/constants.ts";
import { readStreamOpening, targetPageSizeOf } from "../stream/header.ts";
import { isAheadPing } from "../stream/hello.ts";
import { takesSwitchoverAck } from "../stream/machine-type.ts";
import type { StreamReader } from "../stream/reader.ts";
import { readFooter, readSectionHeader } from "../stream/section.ts";
import type { SectionHeader } from "../stream/section.ts";
import { StoppedError } from "../channel/channel.ts";
import { timeFor } from "../channel/time-limits.ts";
import { StreamError } from "../util/errors.ts";
import { finishGuest, startGuest } from "./completion.ts";
import type { IncomingOutcome } from "./completion.ts";
import { awaitThread, checkStop, setPhase } from "./context.ts";
import type { IncomingContext } from "./context.ts";
import { keepPackage, loadPackage } from "./device-package.ts";
import { refuseEarlyDevice, refuseOwnDevices, takeDeviceState } from "./device-state.ts";
import { keepIdentity, settleIdentity } from "./identity.ts";
import { IncomingMemory } from "./incoming-memory.ts";
import { requireTargetPageSize } from "./page-sizes.ts";
import {
  decideToRun,
  refuseGuest,
  returnPathIsOpen,
  tellRefusal,
  tellTurnedAway,
} from "./refusal.ts";
import { HELD, WORD } from "./shared.ts";
import { SourceHello } from "./source-hello.ts";
import { StateMachine } from "./state.ts";
import { forgetChoices, isNobody } from "./turned-away.ts";
import type { TurnedAway } from "./turned-away.ts";

/** What a source has to do at once, with its first bytes. */
const OPENING = "send the list of its guest's RAM blocks";

/** Of a host that was restarted between taking a guest over and taking the rest. */
const RESTARTED =
  "This host was restarted meanwhile: pages that were not on its disk yet are asked for again, " +
  "which a QEMU source with release-ram does not have any more";

export class IncomingLoader {
  readonly #context: IncomingContext;
  #state = new StateMachine();
  readonly #source: SourceHello;
  readonly #memory: IncomingMemory;

  constructor(context: IncomingContext) {
    this.#context = context;
    this.#source = new SourceHello(context.features, context.shared.control);
    this.#memory = new IncomingMemory(context, this.#source);
  }

  /** A source has given its list of RAM blocks: whoever comes after it has to be received here as well. */
  get hasBegun(): boolean {
    return this.#memory.hasBegun;
  }

  /**
   * Receives the guest, to the end, unless who has connected is turned away. May be called again then.
   * @throws StreamError, ChannelError, HostError, StoppedError.
   */
  run(): IncomingOutcome | TurnedAway {
    try {
      return this.#receive();
    } catch (error) {
      if (isNobody(error, this.#context, this.#memory)) {
        const { guest, shared, returnPath } = this.#context;
        if (guest.memory === "foreign") tellTurnedAway(shared, returnPath);
        this.#forget();
        return { turnedAway: error };
      }
      const { shared, returnPath } = this.#context;
      if (refuseGuest(shared)) tellRefusal(shared, returnPath);
      throw error;
    }
  }

  #forget(): void {
    const { control } = this.#context.shared;
    setPhase(this.#context, "waiting");
    forgetChoices(control);
    if (!this.hasBegun) return;
    // The fault thread is not to take the next source for the urgent channel of this one.
    Atomics.store(control, WORD.requestsHeld, HELD.noLink);
    this.#source.startOver();
    this.#state = new StateMachine();
    this.#memory.beginAnew();
  }

  /** Goes on with a guest that an earlier process took over, which was decided to run by then. */
  resume(): IncomingOutcome {
    const { emit, guest, shared } = this.#context;
    const part = guest.resume?.();
    if (part === undefined) throw new Error("a guest that cannot be resumed was to be");
    Atomics.store(shared.control, WORD.returnPathOpen, 1);
    Atomics.store(shared.control, WORD.packageWhole, 1);
    keepIdentity(shared, part.identity);
    if (!part.sameBoot) emit({ kind: "warning", message: RESTARTED });
    this.#memory.resume(part);
    return this.#awaitPages();
  }

  #receive(): IncomingOutcome {
    const { reader } = this.#context.channel;
    // A descriptor (exec:, fd:) is there before anybody uses it; only who has begun must go on.
    reader.ensure(1);
    this.#context.channel.allow(this.#context.linkTimeoutMs, OPENING);
    setPhase(this.#context, "precopy");
    const configuration = readStreamOpening(reader);
    requireTargetPageSize(targetPageSizeOf(configuration));
    this.#memory.machine = configuration?.machine ?? "";
    this.#context.guest.configure(configuration);
    for (;;) {
      if (this.#memory.complete && this.#deviceStateFollows()) return this.#keepFromPrecopy();
      const section = readSectionHeader(reader);
      if (section.kind === "eof") return this.#completeInPrecopy();
      if (section.kind === "command") {
        const command = readCommand(reader);
        this.#requireMemoryOpen(command);
        if (command.kind === "packaged") return this.#completeInPostcopy(command.size);
        this.#requireOutside(command);
        this.#take(command);
      } else {
        this.#load(section, reader);
      }
      checkStop(this.#context.shared);
    }
  }

  /** Behind memory's END there are devices and EOF, as every other reader of a stream has it. */
  #requireMemoryOpen({ kind }: Command): void {
    if (!this.#memory.complete) return;
    const what = `${commandName(kind)} came after guest memory had ended`;
    throw new StreamError("UNEXPECTED", what);
  }

  /** From LISTEN on another thread reads the stream, so LISTEN and RUN have to be in a package. */
  #requireOutside({ kind }: Command): void {
    if (kind !== "postcopyListen" && kind !== "postcopyRun") return;
    throw new StreamError("WRONG_STATE", `${commandName(kind)} came outside of the package`);
  }

  /** A section of the main stream, or of a package of devices that are known here. */
  #load(section: SectionHeader, reader: StreamReader): void {
    switch (section.kind) {
      case "start":
      case "part":
      case "end":
        this.#memory.loadSection(section);
        readFooter(reader, section.sectionId);
        break;
      case "full": {
        const { devices } = this.#context.guest;
        if (devices.kind === "opaque") refuseEarlyDevice(section.idstr);
        devices.load(section, reader);
        readFooter(reader, section.sectionId);
        break;
      }
      default:
        throw new StreamError("UNKNOWN_SECTION", `A ${section.kind} section came too early`);
    }
  }

  /** A command, with the state checked first. */
  #take(command: Command): void {
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

  #completeInPostcopy(size: number): IncomingOutcome {
    const { channel, shared } = this.#context;
    this.#state.requirePackageAllowed();
    setPhase(this.#context, "device");
    channel.allow(timeFor(size, this.#context.linkTimeoutMs), "send the device state");
    const bytes = channel.reader.take(size);
    channel.allowAnyTime();
    Atomics.store(shared.control, WORD.packageWhole, 1);
    this.#takePackage(bytes);
    if (this.#state.state !== "RUNNING") {
      throw new StreamError("BAD_PACKAGE", "The package of device state does not end with RUN");
    }
    setPhase(this.#context, "postcopy");
    return this.#awaitPages();
  }

  #takePackage(bytes: Uint8Array): void {
    const { devices } = this.#context.guest;
    const take = (command: Command): void => this.#take(command);
    if (devices.kind === "opaque") {
      keepPackage(bytes, devices.keep, take);
      return;
    }
    loadPackage(bytes, {
      take,
      load: (section, reader) => this.#load(section, reader),
      hasRun: () => this.#state.state === "RUNNING",
    });
  }

  /** The other threads take what is still to come. */
  #awaitPages(): IncomingOutcome {
    const { shared } = this.#context;
    shared.mainThreadLoadEvent.set();
    awaitThread(shared, (ms) => shared.listenDone.wait(ms));
    return this.#finish("postcopy");
  }

  /** Whether memory is followed by devices that are not known here. */
  #deviceStateFollows(): boolean {
    const { channel, guest } = this.#context;
    return guest.devices.kind === "opaque" && channel.reader.peekU8() === SECTION.full;
  }

  /**
   * The source completed without a switch, and all of its guest is here. It runs nowhere until the
   * files are durable; until then a failure leaves it to the source.
   */
  #keepFromPrecopy(): IncomingOutcome {
    const { channel, guest, shared, linkTimeoutMs } = this.#context;
    this.#state.requireEndAllowed();
    if (this.#source.isOurs) refuseOwnDevices();
    setPhase(this.#context, "device");
    const state = takeDeviceState(channel, linkTimeoutMs);
    shared.counters.set(DEST.bytesReceived, channel.reader.offset);
    if (guest.devices.kind === "opaque") guest.devices.keep(state.bytes, state.vmDescription);
    return this.#finish("precopy", () => {
      if (!decideToRun(shared)) throw new StoppedError();
    });
  }

  #completeInPrecopy(): IncomingOutcome {
    if (!this.#memory.complete) {
      throw new StreamError("TRUNCATED", "The stream ended before the guest's memory did");
    }
    this.#state.requireEndAllowed();
    if (this.#context.guest.devices.kind === "opaque") {
      throw new StreamError("NO_DEVICES", "The stream ended without the guest's device state");
    }
    setPhase(this.#context, "device");
    startGuest(this.#context, this.#source);
    return this.#finish("precopy");
  }

  #finish(
    completedIn: IncomingOutcome["completedIn"],
    commit: () => void = () => {},
  ): IncomingOutcome {
    const [memory, source] = [this.#memory, this.#source];
    finishGuest(this.#context, { completedIn, memory, source, commit });
    this.#state.end();
    return { completedIn };
  }
}
