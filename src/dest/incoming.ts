/**
 * The incoming thread: reads the stream from its first byte, loads precopy pages and device state,
 * and starts the guest (QEMU's `qemu_loadvm_state`). At LISTEN the listen thread takes the stream
 * over, and this one goes on with what is left of the package.
 */
import { DEST, DEST_PHASES } from "../report/counters.ts";
import type { DestPhase } from "../report/counters.ts";
import { commandName, readCommand } from "../stream/command.ts";
import type { Command } from "../stream/command.ts";
import { SECTION, TARGET_PAGE_SIZE } from "../stream/constants.ts";
import { readStreamOpening, targetPageSizeOf } from "../stream/header.ts";
import { FEATURE, PONG_RUNNING, answerValue, isAheadPing, readHello } from "../stream/hello.ts";
import type { Hello } from "../stream/hello.ts";
import { ToldIdentity } from "../stream/identity.ts";
import { takesSwitchoverAck } from "../stream/machine-type.ts";
import { checkPackageHead, packageOfSections, scanPackageTail } from "../stream/package.ts";
import { StreamReader } from "../stream/reader.ts";
import { readFooter, readSectionHeader } from "../stream/section.ts";
import type { SectionHeader } from "../stream/section.ts";
import { ChannelError, StoppedError } from "../channel/channel.ts";
import { timeFor } from "../channel/time-limits.ts";
import { PostcopyError, StreamError, errorChain } from "../util/errors.ts";
import { awaitThread, checkStop } from "./context.ts";
import type { IncomingContext } from "./context.ts";
import { refuseEarlyDevice, refuseOwnDevices, takeDeviceState } from "./device-state.ts";
import { keepIdentity, settleIdentity } from "./identity.ts";
import { IncomingMemory } from "./incoming-memory.ts";
import { decideToRun, refuseGuest, tellRefusal, tellTurnedAway } from "./refusal.ts";
import { HELD, WORD } from "./shared.ts";
import { StateMachine } from "./state.ts";

/** What a source has to do at once, with its first bytes. */
const OPENING = "send the list of its guest's RAM blocks";

/** Of a host that was restarted between taking a guest over and taking the rest. */
const RESTARTED =
  "This host was restarted meanwhile: pages that were not on its disk yet are asked for again, " +
  "which a QEMU source with release-ram does not have any more";

/** How the guest came here. */
export interface IncomingOutcome {
  completedIn: "precopy" | "postcopy";
}

/** Why who has connected is not the one, with nothing decided: another may still come. */
export interface TurnedAway {
  turnedAway: PostcopyError;
}

export class IncomingLoader {
  readonly #context: IncomingContext;
  #state = new StateMachine();
  readonly #memory: IncomingMemory;
  /** What this end can do (FEATURE of stream/hello.ts). */
  #features: number;
  /** The source is one of ours and wants to be told when the guest runs. */
  #tellsRunning = false;
  /** Halves of the urgent channel's token, as far as they have come. */
  #tokenHigh: number | undefined;
  #tokenLow: number | undefined;
  /** Which guest it is, as far as that has come. */
  #told = new ToldIdentity();

  constructor(context: IncomingContext) {
    this.#context = context;
    this.#features = context.features;
    this.#memory = new IncomingMemory(context);
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
      if (this.#isNobody(error)) {
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

  /**
   * Whoever dribbles must not hold the door while the source waits before it. A VMM waits, and goes on
   * waiting, for the source that has its memory: before LISTEN one that is lost, or has another guest, is
   * not worth its life.
   */
  #isNobody(error: unknown): error is PostcopyError {
    const { guest, othersMayCome } = this.#context;
    if (!othersMayCome || !(error instanceof PostcopyError)) return false;
    if (guest.memory !== "foreign") return !this.#memory.isKnown && error.code === "PEER_SLOW";
    if (this.#memory.isTakenOver) return false;
    if (error instanceof StreamError || error instanceof ChannelError) return true;
    // A list of more memory than this host can keep count of.
    return error.code === "NO_MEMORY";
  }

  #forget(): void {
    const { control } = this.#context.shared;
    this.#setPhase("waiting");
    const { pageRuns, packedRuns, returnPathOpen, packageWhole, urgentChosen, urgentToken } = WORD;
    for (const word of [pageRuns, packedRuns, returnPathOpen, packageWhole, urgentChosen]) {
      Atomics.store(control, word, 0);
    }
    if (!this.hasBegun) {
      Atomics.store(control, urgentToken, 0);
      return;
    }
    // The fault thread is not to take the next source for the urgent channel of this one.
    Atomics.store(control, WORD.requestsHeld, HELD.noLink);
    this.#features &= ~FEATURE.urgentChannel;
    this.#state = new StateMachine();
    this.#tellsRunning = false;
    this.#told = new ToldIdentity();
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

  get #returnPathOpen(): boolean {
    return Atomics.load(this.#context.shared.control, WORD.returnPathOpen) === 1;
  }

  #receive(): IncomingOutcome {
    const { reader } = this.#context.channel;
    // A descriptor (exec:, fd:) is there before anybody uses it; only who has begun must go on.
    reader.ensure(1);
    this.#context.channel.allow(this.#context.linkTimeoutMs, OPENING);
    this.#setPhase("precopy");
    const configuration = readStreamOpening(reader);
    const pageSize = targetPageSizeOf(configuration);
    if (pageSize !== TARGET_PAGE_SIZE) {
      const here = `here they have ${TARGET_PAGE_SIZE}`;
      throw new StreamError(
        "PAGE_SIZE",
        `The source's target pages have ${pageSize} bytes, ${here}`,
      );
    }
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

  #setPhase(phase: DestPhase): void {
    this.#context.shared.counters.set(DEST.phase, DEST_PHASES.indexOf(phase));
    if (phase === "precopy" || phase === "device" || phase === "postcopy" || phase === "drained") {
      this.#context.emit({ kind: "phase", phase });
    }
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
        this.#startGuest();
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
    if (!this.#returnPathOpen) {
      throw new StreamError("WRONG_STATE", "PING came before the return path was opened");
    }
    const hello = readHello(value);
    this.#told.take(value);
    if (hello !== undefined) this.#takeHello(hello);
    // What was sent ahead of the switchover is done, then, and not only read.
    if (isAheadPing(value)) this.#memory.forgetDiscarded();
    const answer = hello?.kind === "hello" ? answerValue(this.#features) : value;
    this.#context.returnPath.send({ kind: "pong", value: answer });
  }

  #takeHello({ kind, bits }: Hello): void {
    this.#memory.sourceIsOurs = true;
    if (kind === "token high") this.#tokenHigh = bits;
    if (kind === "token low") this.#tokenLow = bits;
    if (kind !== "chosen") return;
    settleIdentity(this.#context, bits, this.#told);
    this.#tellsRunning = (bits & FEATURE.running) !== 0;
    this.#memory.choose(bits);
    if ((bits & FEATURE.urgentChannel) !== 0) this.#expectUrgentChannel();
    this.#memory.prepare();
  }

  #expectUrgentChannel(): void {
    if (this.#tokenHigh === undefined || this.#tokenLow === undefined) {
      throw new StreamError("UNEXPECTED", "The source chose an urgent channel without a token");
    }
    const { control } = this.#context.shared;
    Atomics.store(control, WORD.urgentToken, (this.#tokenHigh << 16) | this.#tokenLow);
    Atomics.store(control, WORD.urgentChosen, 1);
  }

  #startGuest(): void {
    const { guest, shared, returnPath } = this.#context;
    if (guest.devices.kind === "modelled") guest.devices.complete();
    if (!decideToRun(shared)) throw new StoppedError();
    guest.run();
    this.#context.emit({ kind: "running" });
    if (!this.#tellsRunning) return;
    this.#orWarn("The source was not told that the guest runs", () => {
      returnPath.send({ kind: "pong", value: PONG_RUNNING });
    });
  }

  /** Does what the guest does not depend on: its failure is worth a warning, not the guest. */
  #orWarn(failure: string, act: () => void): void {
    try {
      act();
    } catch (error) {
      const why = error instanceof Error ? errorChain(error) : String(error);
      this.#context.emit({ kind: "warning", message: `${failure}: ${why}` });
    }
  }

  #completeInPostcopy(size: number): IncomingOutcome {
    const { channel, guest, shared } = this.#context;
    this.#state.requirePackageAllowed();
    this.#setPhase("device");
    channel.allow(timeFor(size, this.#context.linkTimeoutMs), "send the device state");
    const bytes = channel.reader.take(size);
    channel.allowAnyTime();
    Atomics.store(shared.control, WORD.packageWhole, 1);
    if (guest.devices.kind === "opaque") this.#keepPackage(bytes, guest.devices.keep);
    else this.#loadPackage(bytes);
    if (this.#state.state !== "RUNNING") {
      throw new StreamError("BAD_PACKAGE", "The package of device state does not end with RUN");
    }
    this.#setPhase("postcopy");
    return this.#awaitPages();
  }

  /** The other threads take what is still to come. */
  #awaitPages(): IncomingOutcome {
    const { shared } = this.#context;
    shared.mainThreadLoadEvent.set();
    awaitThread(shared, (ms) => shared.listenDone.wait(ms));
    return this.#finish("postcopy");
  }

  /** LISTEN, then device after device, then RUN: each may need pages that are not here yet. */
  #loadPackage(bytes: Uint8Array): void {
    checkPackageHead(bytes);
    const reader = new StreamReader(bytes, bytes.length);
    while (reader.available > 0) {
      const section = readSectionHeader(reader);
      switch (section.kind) {
        case "command":
          this.#take(readCommand(reader));
          // RUN ends the package whatever stands behind it, as in QEMU (LOADVM_QUIT).
          if (this.#state.state === "RUNNING") return;
          break;
        case "start":
        case "part":
        case "end":
          // Its pages are in the main stream, which the listen thread reads by now.
          throw new StreamError(
            "BAD_PACKAGE",
            `The package of device state has a section of memory (${section.kind})`,
          );
        default:
          this.#load(section, reader);
      }
    }
  }

  /** A package that stays opaque: its PINGs are found from the end and answered. */
  #keepPackage(bytes: Uint8Array, keep: (bytes: Uint8Array) => void): void {
    checkPackageHead(bytes);
    const { pings } = scanPackageTail(bytes);
    keep(bytes);
    this.#take({ kind: "postcopyListen" });
    for (const value of pings) this.#take({ kind: "ping", value });
    this.#take({ kind: "postcopyRun" });
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
    if (this.#memory.sourceIsOurs) refuseOwnDevices();
    this.#setPhase("device");
    const at = channel.reader.offset;
    const { sections, vmDescription } = takeDeviceState(channel, linkTimeoutMs);
    shared.counters.set(DEST.bytesReceived, channel.reader.offset);
    if (guest.devices.kind === "opaque") {
      guest.devices.keep(packageOfSections(sections, at), vmDescription);
    }
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
    this.#setPhase("device");
    this.#startGuest();
    return this.#finish("precopy");
  }

  /** When the guest has finished it is whole here: nothing that follows may lose it again. */
  #finish(
    completedIn: IncomingOutcome["completedIn"],
    commit: () => void = () => {},
  ): IncomingOutcome {
    const { guest, returnPath } = this.#context;
    this.#setPhase("drained");
    guest.finish(commit);
    this.#state.end();
    this.#orWarn("The memory is not locked", () => this.#memory.restoreLock());
    if (this.#returnPathOpen) {
      const isKept = guest.devices.kind === "opaque";
      const keptInPrecopy = completedIn === "precopy" && isKept;
      const then = keptInPrecopy ? ", and lets it go on" : "";
      this.#orWarn(`The source was not told that the guest is whole here${then}`, () => {
        if (isKept && completedIn === "postcopy") this.#memory.sayKept();
        returnPath.send({ kind: "shut", status: 0 });
      });
    }
    this.#setPhase("completed");
    return { completedIn };
  }
}
