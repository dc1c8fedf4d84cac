/** The stress guest as the source role sees it. */
import type { RamBlock } from "../../ram/block.ts";
import { GuestMemory } from "../../ram/page-reader.ts";
import type { PageReader } from "../../ram/page-reader.ts";
import type { SourceGuest } from "../../source/guest.ts";
import { PING_LOADED } from "../../source/stream.ts";
import { writePackage } from "../../stream/package.ts";
import { StreamWriter } from "../../stream/writer.ts";
import { PostcopyError } from "../../util/errors.ts";
import { StressControl } from "./control.ts";
import { STRESS_MACHINE, StressDevice } from "./machine.ts";
import type { StressSetup } from "./setup.ts";

/** A worker parks within one operation, unless it waits for a page that is not here yet. */
const STOP_TIMEOUT_MS = 5000;

export class StressSourceGuest implements SourceGuest {
  readonly machineType = STRESS_MACHINE;
  readonly live = true;
  readonly blocks: readonly RamBlock[];
  readonly #control: StressControl;
  readonly #device: StressDevice;

  constructor(setup: StressSetup, blocks: readonly RamBlock[]) {
    this.blocks = blocks;
    this.#control = new StressControl(setup.control);
    this.#device = new StressDevice(setup);
  }

  openPages(): PageReader {
    return new GuestMemory(this.blocks);
  }

  stop(): void {
    if (this.#control.pause(STOP_TIMEOUT_MS)) return;
    throw new PostcopyError("GUEST_STUCK", "The stress guest did not stop when told to");
  }

  resume(): void {
    this.#control.resume();
  }

  sectionsAhead(): Uint8Array {
    return this.#device.ahead();
  }

  devicePackage(): Uint8Array {
    const device = this.deviceSections();
    const writer = new StreamWriter();
    writePackage(writer, (inner) => inner.raw(device), [PING_LOADED]);
    return writer.bytes;
  }

  devicePages(): Uint32Array {
    return this.#device.pages();
  }

  deviceSections(): Uint8Array {
    return this.#device.rest();
  }
}
