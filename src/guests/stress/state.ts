/**
 * The device state of a stress guest: what travels in the package beside the memory, so that the
 * destination can go on where the source stopped and check the memory against something that is
 * not the memory. Saved while all workers are parked.
 */
import { StressControl, type WorkerProgress } from "./control.ts";
import { chooseDescriptors, type PageDescriptor } from "./descriptors.ts";
import type { StressParameters } from "./parameters.ts";
import type { StressSetup } from "./setup.ts";

/** The version_id of the device's VMState section; a change of the layout takes the next. */
export const STRESS_STATE_VERSION = 1;

/** When the guest executed its last instruction at the source, by the source's clock. */
export interface StopTime {
  /** Nanoseconds of CLOCK_MONOTONIC, as a float. */
  monotonicNs: number;
  /** /proc/sys/kernel/random/boot_id: clocks of the same boot of the same host compare. */
  bootId: string;
}

export interface StressState {
  parameters: StressParameters;
  stopTime: StopTime;
  /** One entry a worker. */
  progress: WorkerProgress[];
  /** Pages that the loader reads while it loads the state. */
  descriptors: PageDescriptor[];
  /** One version word a page. */
  versions: SharedArrayBuffer;
}

/**
 * The state of a parked guest; throws Error when a worker still runs. The versions are not copied:
 * encode the state before the guest is resumed.
 */
export function saveStressState(setup: StressSetup, bootId: string): StressState {
  const control = new StressControl(setup.control);
  if (!control.parked) throw new Error("the state of a stress guest that is not parked");
  const { parameters, versions } = setup;
  return {
    parameters,
    stopTime: { monotonicNs: control.runTimes().lastNs, bootId },
    progress: control.progress(),
    descriptors: chooseDescriptors(parameters, new Uint32Array(versions)),
    versions,
  };
}
