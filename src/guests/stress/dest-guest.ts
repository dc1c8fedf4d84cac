/** The stress guest as the dest role sees it: it learns all of itself from the stream. */
import { viewMemory } from "../../../syscalls/memory.ts";
import type { DestGuest, DeviceLoading, PageSizes } from "../../dest/guest.ts";
import type { RamBlock } from "../../ram/block.ts";
import type { StreamConfiguration } from "../../stream/header.ts";
import type { RamSetupBlock } from "../../stream/ram-setup.ts";
import type { StreamReader } from "../../stream/reader.ts";
import type { DeviceSection } from "../../stream/section.ts";
import { StreamError } from "../../util/errors.ts";
import { StressControl } from "./control.ts";
import { checkDescriptors } from "./descriptors.ts";
import { STRESS_DEVICE, STRESS_MACHINE, STRESS_UPDATE } from "./machine.ts";
import { mapBlocks } from "./memory.ts";
import type { StressParameters } from "./parameters.ts";
import { openPool } from "./pattern.ts";
import { continueStressSetup, openStressWorld } from "./setup.ts";
import type { StressSetup, StressWorld } from "./setup.ts";
import { decodeStressState, decodeStressUpdate } from "./state-codec.ts";
import { STRESS_STATE_VERSION, STRESS_UPDATE_VERSION } from "./state.ts";
import type { StopTime, StressState } from "./state.ts";

/** A guest whose device state has come, if not all of it; its threads can attach to it. */
export interface ArrivedStress {
  setup: StressSetup;
  blocks: readonly RamBlock[];
}

/** What main is told of it. */
export type StressNews =
  | { kind: "stress arrived"; guest: ArrivedStress }
  /** When its last instruction was, at the source. */
  | { kind: "stress stopped"; stopTime: StopTime };

/** The guest as the incoming thread has it. */
interface Arrival {
  setup: StressSetup;
  control: StressControl;
  world: StressWorld;
  /** As it was when it last came. */
  state: Pick<StressState, "stopTime" | "progress" | "descriptors">;
}

export class StressDestGuest implements DestGuest {
  readonly memory = "userfault";
  readonly devices: DeviceLoading = {
    kind: "modelled",
    load: (section, reader) => this.#load(section, reader),
    complete: () => this.#complete(),
  };
  readonly #expected: StressParameters | undefined;
  readonly #tell: (news: StressNews) => void;
  #blocks: readonly RamBlock[] = [];
  #guest: Arrival | undefined;

  /**
   * `expected` are parameters that the operator wants to see, if any; once told that it has arrived
   * the guest's threads attach, and park until `run`.
   */
  constructor(expected: StressParameters | undefined, tell: (news: StressNews) => void) {
    this.#expected = expected;
    this.#tell = tell;
    // The guest stands still when its first page is looked at.
    openPool();
  }

  configure(configuration: StreamConfiguration | undefined): void {
    const machine = configuration?.machine ?? "none";
    if (machine === STRESS_MACHINE) return;
    throw new StreamError(
      "WRONG_GUEST",
      `The source sends a guest of machine type "${machine}"; a stress guest is expected`,
      { hint: "keep the guest of a QEMU with dest --guest snapshot:DIRECTORY" },
    );
  }

  prepareMemory(setup: readonly RamSetupBlock[], _advice: PageSizes | undefined): RamBlock[] {
    const bytes = setup.reduce((sum, block) => sum + block.length, 0);
    if (this.#expected !== undefined && this.#expected.size !== bytes) {
      throw new StreamError(
        "RAM_SIZE",
        `The guest that arrives has ${bytes} bytes of RAM, ${this.#expected.size} were expected`,
        { hint: "dest --guest stress without parameters takes any stress guest" },
      );
    }
    const blocks = mapBlocks(setup);
    this.#blocks = blocks;
    return blocks;
  }

  sinkData(): undefined {
    return undefined;
  }

  #load(section: DeviceSection, reader: StreamReader): void {
    const { idstr, versionId } = section;
    if (idstr === STRESS_DEVICE && versionId === STRESS_STATE_VERSION) this.#loadState(reader);
    else if (idstr === STRESS_UPDATE && versionId === STRESS_UPDATE_VERSION) this.#update(reader);
    else {
      throw new StreamError(
        "UNSUPPORTED_DEVICE",
        `The stream has a device "${idstr}" of version ${versionId}, which a stress guest does not ` +
          "have",
      );
    }
  }

  #loadState(reader: StreamReader): void {
    if (this.#guest !== undefined) {
      throw new StreamError("UNEXPECTED", "The state of the stress guest's device came twice");
    }
    const state = decodeStressState(reader, this.#blocks);
    const setup = continueStressSetup(state, [...this.#blocks]);
    const control = new StressControl(setup.control);
    this.#guest = { setup, control, world: openStressWorld(setup, viewMemory), state };
    this.#tell({ kind: "stress arrived", guest: { setup, blocks: this.#blocks } });
  }

  /** The state came while the guest still ran at the source: what has changed since. */
  #update(reader: StreamReader): void {
    const guest = this.#guest;
    if (guest === undefined) {
      throw new StreamError("UNEXPECTED", "The stress guest's device changed before it came");
    }
    const { workers } = guest.setup.parameters;
    guest.state = decodeStressUpdate(reader, workers, guest.setup.versions);
    guest.control.goOnFrom(guest.state.progress);
  }

  /** These pages may not be here yet: this thread then waits in a fault, and another brings them. */
  #complete(): void {
    if (this.#guest === undefined) {
      throw new StreamError("NO_DEVICES", "The guest is to run, but its device never came");
    }
    const { world, state } = this.#guest;
    checkDescriptors(world, state.descriptors);
  }

  run(): void {
    if (this.#guest === undefined) throw new Error("a guest without device state was to run");
    const { control, state } = this.#guest;
    control.resume();
    this.#tell({ kind: "stress stopped", stopTime: state.stopTime });
  }

  finish(): void {
    // Its memory is complete; nothing is kept anywhere else.
  }
}
