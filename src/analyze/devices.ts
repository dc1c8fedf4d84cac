/** Device state as an analysis lists it: each section with its name, its place and its size. */
import type { AnalysedDevices, StreamAnalysis } from "../report/analysis.ts";
import { areDescribed, splitDeviceSections } from "../stream/device-sections.ts";
import { checkPackageHead, PACKAGE_DEVICES_START, scanPackageTail } from "../stream/package.ts";
import { readDescribedDevices } from "../stream/vm-description.ts";
import type { DescribedDevice } from "../stream/vm-description.ts";

/** What the description says, but of the devices that came ahead of memory. */
function expectedDevices(
  description: string | undefined,
  early: StreamAnalysis["earlyDevices"],
): DescribedDevice[] | undefined {
  if (description === undefined) return undefined;
  return readDescribedDevices(description)?.filter(({ idstr, instanceId }) => {
    return !early.some((one) => one.name === idstr && one.instanceId === instanceId);
  });
}

/**
 * Lists the sections of `bytes`, of which the first stands at `at`; `early` are those that a
 * description lists as well.
 */
export function analyseDevices(
  bytes: Uint8Array,
  at: number,
  where: AnalysedDevices["where"],
  description?: string,
  early: StreamAnalysis["earlyDevices"] = [],
): AnalysedDevices {
  const expected = expectedDevices(description, early);
  const stretches = splitDeviceSections(bytes, expected);
  const sections = stretches.map(({ section, at: from, end, proven }) => ({
    name: section?.idstr ?? null,
    instanceId: section?.instanceId ?? 0,
    versionId: section?.versionId ?? 0,
    sectionId: section?.sectionId ?? 0,
    at: at + from,
    bytes: end - from,
    proven,
  }));
  const described = expected === undefined ? null : areDescribed(stretches, expected);
  return { where, at, bytes: bytes.length, described, sections };
}

/**
 * A whole package: its devices, and the PINGs behind them. `description` is kept with the package of
 * a guest that completed in precopy. @throws StreamError BAD_PACKAGE.
 */
export function analysePackage(
  bytes: Uint8Array,
  at: number,
  description?: string,
): { devices: AnalysedDevices; pings: { at: number; value: number }[]; runAt: number } {
  checkPackageHead(bytes);
  const { pings, devicesEnd } = scanPackageTail(bytes);
  const state = bytes.subarray(PACKAGE_DEVICES_START, devicesEnd);
  const devices = analyseDevices(state, at + PACKAGE_DEVICES_START, "package", description);
  const pingBytes = 9;
  return {
    devices,
    pings: pings.map((value, index) => ({ value, at: at + devicesEnd + index * pingBytes })),
    runAt: at + devicesEnd + pings.length * pingBytes,
  };
}
