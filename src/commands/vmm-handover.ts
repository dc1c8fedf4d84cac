/** What a VMM has handed over, and what it must not do because of what it has not. */
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { enabledFeatures } from "../../syscalls/userfaultfd.ts";
import { sharesMemory } from "../guests/uffd/vmm-process.ts";
import type { Vmm } from "../guests/uffd/vmm.ts";
import { log } from "../util/log.ts";
import { formatBytes } from "../util/units.ts";
import type { Output } from "./common.ts";

/** Says that a VMM is there, and warns of what cannot be seen of it. */
export function sayHandover({ handover, pid }: Vmm, how: string, output: Output): void {
  const bytes = handover.regions.reduce((sum, { length }) => sum + length, 0);
  const regions = handover.regions.length;
  output.events.emit({ event: "handover", pid, regions, bytes });
  const what = `${formatBytes(bytes)} in ${regions} region${regions === 1 ? "" : "s"}`;
  log.info(`The VMM (process ${pid}) ${how} ${what}`);
  const features = enabledFeatures(handover.userfaultFd) ?? 0;
  if ((features & UFFD.UFFD_FEATURE_EVENT_REMOVE) === 0) {
    const message =
      "The VMM has not asked for UFFD_FEATURE_EVENT_REMOVE: until all is there it must give no memory " +
      "back (balloon, free page reporting)";
    output.warn("VMM_UNHEARD", message);
  }
  const changes = UFFD.UFFD_FEATURE_EVENT_UNMAP | UFFD.UFFD_FEATURE_EVENT_REMAP;
  // Most VMMs neither do it nor ask for the events: no reason for a warning.
  if ((features & changes) !== changes) {
    log.verbose("The VMM would not be heard: until all is there it must unmap and move no memory");
  }
  if (sharesMemory(pid, handover.regions) !== true) return;
  const message =
    "The VMM's memory is a file that others may map: until all is there they must not read it, and " +
    "it must be given back by MADV_REMOVE alone";
  output.warn("VMM_SHARED", message);
}
