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
import { STRESS_DEVICE, STRESS_MACHINE } from "./machine.ts";
import { mapBlocks } from "./memory.ts";
import type { StressParameters } from "./parameters.ts";
import { continueStressSetup, openStressWorld } from "./setup.ts";
import type { StressSetup } from "./setup.ts";
import { decodeStressState } from "./state-codec.ts";
import { STRESS_STATE_VERSION } from "./state.ts";
import type { StopTime } from "./state.ts";

/** A guest whose device state has been decoded; its threads can attach to it. */
export interface ArrivedStress {
  setup: StressSetup;
  blocks: readonly RamBlock[];
  stopTime: StopTime;
}

export class StressDestGuest implements DestGuest {
  readonly memory = "userfault";
  readonly devices: DeviceLoading = {
    kind: "modelled",
    load: (section, reader) => this.#load(section, reader),
  };
  readonly #expected: StressParameters | undefined;
  readonly #arrived: (guest: ArrivedStress) => void;
  #blocks: readonly RamBlock[] = [];
  #control: StressControl | undefined;

  /**
   * `expected` are parameters that the operator wants to see, if any; `arrived` lets the guest's
   * threads attach: they park until `run`.
   */
  constructor(expected: StressParameters | undefined, arrived: (guest: ArrivedStress) => void) {
    this.#expected = expected;
    this.#arrived = arrived;
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
    if (section.idstr !== STRESS_DEVICE || section.versionId !== STRESS_STATE_VERSION) {
      throw new StreamError(
        "UNSUPPORTED_DEVICE",
        `The stream has a device "${section.idstr}" of version ${section.versionId}, which a ` +
          "stress guest does not have",
      );
    }
    if (this.#control !== undefined) {
      throw new StreamError("UNEXPECTED", "The state of the stress guest's device came twice");
    }
    const state = decodeStressState(reader, this.#blocks);
    const setup = continueStressSetup(state, [...this.#blocks]);
    this.#control = new StressControl(setup.control);
    this.#arrived({ setup, blocks: this.#blocks, stopTime: state.stopTime });
    // These pages may not be here yet: this thread then waits in a fault, and the listen thread,
    // which reads the stream meanwhile, brings them.
    checkDescriptors(openStressWorld(setup, viewMemory), state.descriptors);
  }

  run(): void {
    if (this.#control === undefined) {
      throw new StreamError("NO_DEVICES", "The guest is to run, but its device never came");
    }
    this.#control.resume();
  }

  finish(): void {
    // Its memory is complete; nothing is kept anywhere else.
  }
}
