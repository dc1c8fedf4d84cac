/**
 * How the stress guest appears on the wire: its machine type, which a QEMU refuses by name, and its
 * one device.
 */
import { StreamWriter } from "../../stream/writer.ts";
import { writeFooter, writeFullSection } from "../../stream/section.ts";
import { bootId } from "../../util/processes.ts";
import type { StressSetup } from "./setup.ts";
import { encodeStressState } from "./state-codec.ts";
import { saveStressState, STRESS_STATE_VERSION } from "./state.ts";

/** Machine type of the configuration section. */
export const STRESS_MACHINE = "postcopy-stress-1";
/** Name of the device section. */
export const STRESS_DEVICE = "stress";
const STRESS_SECTION_ID = 2;

/** The device state of a parked guest as a FULL section with its footer. */
export function encodeStressDevice(setup: StressSetup): Uint8Array {
  const writer = new StreamWriter();
  writeFullSection(writer, {
    sectionId: STRESS_SECTION_ID,
    idstr: STRESS_DEVICE,
    instanceId: 0,
    versionId: STRESS_STATE_VERSION,
  });
  encodeStressState(writer, saveStressState(setup, bootId()));
  writeFooter(writer, STRESS_SECTION_ID);
  return writer.bytes;
}
