/**
 * The device state of a stress guest: what travels in the package beside the memory, so that the
 * destination can go on where the source stopped and check the memory against something that is
 * not the memory. Saved while all workers are parked.
 */
import type { VersionChanges } from "./changes.ts";
import { StressControl, type WorkerProgress } from "./control.ts";
import { chooseDescriptors, type PageDescriptor } from "./descriptors.ts";
import type { StressParameters } from "./parameters.ts";
import type { StressSetup } from "./setup.ts";

/** The version_id of the device's VMState section; a change of the layout takes the next. */
export const STRESS_STATE_VERSION = 1;
/** The same of the section with what has changed since. */
export const STRESS_UPDATE_VERSION = 1;

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

/** What has changed in the state of a guest since it, or the last of these, was sent. */
export interface StressUpdate {
  stopTime: StopTime;
  /** One entry a worker. */
  progress: WorkerProgress[];
  descriptors: PageDescriptor[];
  changes: VersionChanges;
}

/**
 * The state of a parked guest; throws Error when a worker still runs. The versions are not copied:
 * encode the state before the guest is resumed.
 */
export function saveStressState(setup: StressSetup, bootId: string): StressState {
  requireParked(setup);
  return saveStateAhead(setup, setup.versions, bootId);
}

/**
 * The state of a guest that runs: worth something only with the update that is made of it once it is
 * parked. `versions` is a copy of those of the guest, which change.
 */
export function saveStateAhead(
  setup: StressSetup,
  versions: SharedArrayBuffer,
  bootId: string,
): StressState {
  const control = new StressControl(setup.control);
  const { parameters } = setup;
  return {
    parameters,
    stopTime: { monotonicNs: control.runTimes().lastNs, bootId },
    progress: control.progress(),
    descriptors: chooseDescriptors(parameters, new Uint32Array(versions)),
    versions,
  };
}

/** What has changed, with `versions` as sent up to and with these `changes`. */
export function saveStressUpdate(
  setup: StressSetup,
  versions: SharedArrayBuffer,
  changes: VersionChanges,
  bootId: string,
): StressUpdate {
  const { stopTime, progress, descriptors } = saveStateAhead(setup, versions, bootId);
  return { stopTime, progress, descriptors, changes };
}

/** @throws Error when a worker still runs. */
export function requireParked({ control }: StressSetup): void {
  if (new StressControl(control).parked) return;
  throw new Error("the state of a stress guest that is not parked");
}
