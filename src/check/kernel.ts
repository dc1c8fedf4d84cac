/** The facts that only system calls can tell: each is tried for real, on a page of its own. */
import { errnoName } from "../../syscalls/abi/errno.ts";
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { SyscallError } from "../../syscalls/error.ts";
import {
  BASE_PAGE_BYTES,
  mapAnonymous,
  mlock,
  munlock,
  viewMemory,
} from "../../syscalls/memory.ts";
import { PageMap } from "../../syscalls/pagemap.ts";
import { openProcess } from "../../syscalls/pidfd.ts";
import { openUserfault, tryUserfaultWay, userfaultFeatures } from "../../syscalls/userfaultfd.ts";
import type { UserfaultWay } from "../../syscalls/userfaultfd.ts";

/** What the kernel itself answers; null where it could not be asked at all. */
export interface KernelFacts {
  /** How each way to a userfaultfd ended: null when it was granted, else the name of the errno. */
  userfault: Readonly<Record<UserfaultWay, string | null>>;
  /** Feature bits of UFFDIO_API; 0 when no way leads to a userfaultfd. */
  features: number;
  /** Null when PAGEMAP_SCAN found a page that was written; else why not. */
  pagemapScan: string | null;
  /** Null when a page could be locked into memory; else the name of the errno. */
  memoryLock: string | null;
  /** Null when a process could be watched by a descriptor; else the name of the errno. */
  processDescriptor: string | null;
}

/** Asks the kernel what it grants and what it can do. */
export function askKernel(): KernelFacts {
  const userfault = {
    "system call": tryWay("system call"),
    "/dev/userfaultfd": tryWay("/dev/userfaultfd"),
    "user mode only": tryWay("user mode only"),
  };
  const granted = Object.values(userfault).includes(null);
  const features = granted ? userfaultFeatures() : 0;
  return {
    userfault,
    features,
    pagemapScan: tryPagemapScan(granted, features),
    memoryLock: tryMemoryLock(),
    processDescriptor: tryProcessDescriptor(),
  };
}

function tryMemoryLock(): string | null {
  using memory = mapAnonymous(BASE_PAGE_BYTES);
  return refusal(() => {
    mlock(memory.address, memory.length);
    munlock(memory.address, memory.length);
  });
}

function tryProcessDescriptor(): string | null {
  return refusal(() => closeDescriptor(openProcess(process.pid)));
}

/** The name of the errno that a system call ended with, null when it did what it should. */
function refusal(act: () => void): string | null {
  try {
    act();
    return null;
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return error.code;
  }
}

function tryWay(way: UserfaultWay): string | null {
  const result = tryUserfaultWay(way);
  if (result < 0) return errnoName(-result);
  closeDescriptor(result);
  return null;
}

const WRITE_TRACKING =
  UFFD.UFFD_FEATURE_PAGEFAULT_FLAG_WP |
  UFFD.UFFD_FEATURE_WP_UNPOPULATED |
  UFFD.UFFD_FEATURE_WP_ASYNC;

/** Tracks two pages, writes to the second, and looks whether just that one is found. */
function tryPagemapScan(granted: boolean, features: number): string | null {
  if (!granted) return "it needs a userfaultfd";
  if ((features & WRITE_TRACKING) !== WRITE_TRACKING) return "userfaultfd lacks WP_ASYNC";
  using memory = mapAnonymous(2 * BASE_PAGE_BYTES);
  const { address, length } = memory;
  const { userfault } = openUserfault();
  const pageMap = new PageMap();
  try {
    userfault.enable(WRITE_TRACKING);
    userfault.register(address, length, UFFD.UFFDIO_REGISTER_MODE_WP);
    userfault.writeProtect(address, length);
    new Uint8Array(viewMemory(address, length))[BASE_PAGE_BYTES] = 1;
    let found = "";
    pageMap.takeWritten(address, address + length, (start, end) => {
      found += `${(start - address) / BASE_PAGE_BYTES}-${(end - address) / BASE_PAGE_BYTES} `;
    });
    return found === "1-2 " ? null : `it found pages ${found.trim()} instead of the second`;
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return error.message;
  } finally {
    pageMap.close();
    userfault.close();
  }
}
