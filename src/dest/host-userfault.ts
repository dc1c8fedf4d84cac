/** What postcopy into memory of this process needs of this host: a userfaultfd, and what it can do. */
import { BASE_PAGE_BYTES } from "../../syscalls/memory.ts";
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { openUserfault, userfaultFeatures } from "../../syscalls/userfaultfd.ts";
import type { Userfault } from "../../syscalls/userfaultfd.ts";
import { HostError } from "../util/errors.ts";
import type { PageSizes } from "./guest.ts";

/** The features that postcopy asks of a userfaultfd: faults on missing pages, and discards. */
function neededFeatures(pageSizes: number): number {
  const huge = (pageSizes & ~BASE_PAGE_BYTES) !== 0;
  return UFFD.UFFD_FEATURE_EVENT_REMOVE | (huge ? UFFD.UFFD_FEATURE_MISSING_HUGETLBFS : 0);
}

/** @throws HostError that names what is missing. */
export function checkHost(ram: PageSizes): void {
  let features: number;
  try {
    features = userfaultFeatures();
  } catch (cause) {
    throw new HostError("NO_USERFAULTFD", "This host lets us have no userfaultfd", {
      cause,
      hint: "postcopy check says how to get it",
    });
  }
  const needed = neededFeatures(ram.pageSizeSummary);
  if ((features & needed) === needed) return;
  throw new HostError("NO_USERFAULTFD", "The kernel's userfaultfd lacks what postcopy needs", {
    hint: "it takes Linux 4.11 or later",
  });
}

/** Opens one for memory with pages of these sizes (`pageSizeSummary`). */
export function openHostUserfault(pageSizes: number, warn: (message: string) => void): Userfault {
  const { userfault, way } = openUserfault();
  if (way === "user mode only") {
    warn(
      "This host allows a userfaultfd for user code only: a system call that touches a page " +
        "which is not here yet fails (postcopy check says how to get a full one)",
    );
  }
  userfault.enable(neededFeatures(pageSizes));
  return userfault;
}
