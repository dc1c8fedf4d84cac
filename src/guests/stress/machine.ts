/**
 * How the stress guest appears on the wire: its machine type, which a QEMU refuses by name, and its
 * one device.
 */
import { StreamWriter } from "../../stream/writer.ts";
import { writeFooter, writeFullSection } from "../../stream/section.ts";
import { bootId } from "../../util/processes.ts";
import { SentVersions } from "./changes.ts";
import { chooseDescriptors } from "./descriptors.ts";
import type { StressSetup } from "./setup.ts";
import { encodeStressState, encodeStressUpdate } from "./state-codec.ts";
import {
  requireParked,
  saveStateAhead,
  saveStressState,
  saveStressUpdate,
  STRESS_STATE_VERSION,
  STRESS_UPDATE_VERSION,
} from "./state.ts";
import type { StressState } from "./state.ts";

/** Machine type of the configuration section. */
export const STRESS_MACHINE = "postcopy-stress-1";
/** Names of the device's section, and of the one with what has changed since. */
export const STRESS_DEVICE = "stress";
export const STRESS_UPDATE = "stress/update";
const STRESS_SECTION_ID = 2;

/** The device state of a guest, as FULL sections with their footers. */
export class StressDevice {
  readonly #setup: StressSetup;
  readonly #bootId = bootId();
  /** Versions that were sent while the guest ran. */
  #sent: SentVersions | undefined;

  constructor(setup: StressSetup) {
    this.#setup = setup;
  }

  /** The state of the guest while it runs, for the first time, then what has changed of it. */
  ahead(): Uint8Array {
    if (this.#sent !== undefined) return this.#update(this.#sent);
    this.#sent = new SentVersions(this.#setup);
    return this.#state(saveStateAhead(this.#setup, this.#sent.sent, this.#bootId));
  }

  /** What makes the state of the parked guest, with what was sent ahead. */
  rest(): Uint8Array {
    requireParked(this.#setup);
    if (this.#sent !== undefined) return this.#update(this.#sent);
    return this.#state(saveStressState(this.#setup, this.#bootId));
  }

  /** Pages that the state points at, counted over all blocks. */
  pages(): Uint32Array {
    const { parameters, versions } = this.#setup;
    const descriptors = chooseDescriptors(parameters, new Uint32Array(versions));
    return Uint32Array.from(descriptors, ({ page }) => page);
  }

  #state(state: StressState): Uint8Array {
    return section(STRESS_DEVICE, STRESS_STATE_VERSION, (writer) => {
      encodeStressState(writer, state);
    });
  }

  #update(sent: SentVersions): Uint8Array {
    const changes = sent.take();
    return section(STRESS_UPDATE, STRESS_UPDATE_VERSION, (writer) => {
      encodeStressUpdate(writer, saveStressUpdate(this.#setup, sent.sent, changes, this.#bootId));
    });
  }
}

function section(
  idstr: string,
  versionId: number,
  body: (writer: StreamWriter) => void,
): Uint8Array {
  const writer = new StreamWriter();
  writeFullSection(writer, { sectionId: STRESS_SECTION_ID, idstr, instanceId: 0, versionId });
  body(writer);
  writeFooter(writer, STRESS_SECTION_ID);
  return writer.bytes;
}
