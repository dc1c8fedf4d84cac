/**
 * The probes of `check`: a table of names and tiny functions from the facts of a host to a verdict,
 * each with what would mend it. The model is `criu check`.
 */
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { formatBytes, formatCount, formatPageSize } from "../util/units.ts";
import type { Facts } from "./facts.ts";
import type { Probe, ProbeResult, Role } from "./probe.ts";
import { probeDevice, probePrivilege, probeSysctl, probeUserfault } from "./userfault-probes.ts";

const BOTH: readonly Role[] = ["source", "dest"];
const SOURCE: readonly Role[] = ["source"];
const DEST: readonly Role[] = ["dest"];

/** Linux 4.11 is the first whose userfaultfd reports what a guest discards. */
const KERNEL_MIN = [4, 11] as const;
const PAGE_SIZE = 4096;
/** Threads of a migration that work at the same time: one pushes, one serves faults. */
const CORES_MIN = 2;
/** Bits of capabilities(7). */
const CAP_IPC_LOCK = 14;
const CAP_SYS_NICE = 23;
/** RLIMIT_NICE that allows the nice value -15: 20 + 15. */
const NICE_LIMIT_WANTED = 35;
const HUGE_PAGE_SIZE = 2 * 1024 * 1024;
/** Pages of the pool that the hint asks for: 1 GiB. */
const HUGE_PAGES_HINT = 512;
/** Memory that --mlock wants to lock at the least for it to be of any use. */
const MEMLOCK_MIN = 1024 * 1024 * 1024;
/** The oldest QEMU that this program is tested with. */
const QEMU_MIN = [7, 2] as const;

function isAtLeast(version: string, least: readonly [number, number]): boolean {
  const [major = 0, minor = 0] = version.split(/[.-]/).map(Number);
  return major > least[0] || (major === least[0] && minor >= least[1]);
}

function probeKernel({ platform, kernelRelease }: Facts): ProbeResult {
  const detail = `${platform === "linux" ? "Linux" : platform} ${kernelRelease}`;
  if (platform === "linux" && isAtLeast(kernelRelease, KERNEL_MIN)) return { state: "ok", detail };
  const fix = `boot Linux ${KERNEL_MIN.join(".")} or later`;
  return { state: "missing", detail, fix };
}

function probeArchitecture({ architecture }: Facts): ProbeResult {
  if (architecture === "x64" || architecture === "arm64") {
    return { state: "ok", detail: architecture };
  }
  return { state: "missing", detail: architecture, fix: "use an x86-64 or arm64 host" };
}

function probePageSize({ pageSize }: Facts): ProbeResult {
  if (pageSize === PAGE_SIZE) return { state: "ok", detail: formatPageSize(pageSize) };
  const detail = pageSize === 0 ? "unknown" : `${formatPageSize(pageSize)}, and 4K is supported`;
  return { state: "missing", detail, fix: "boot a kernel with pages of 4K" };
}

/** A probe of one feature bit. */
function probeFeature(bit: number, what: string, since: string) {
  return ({ kernel }: Facts): ProbeResult => {
    const features = kernel?.features ?? 0;
    if ((features & bit) !== 0) return { state: "ok", detail: what };
    if (features === 0) {
      const detail = "unknown as long as userfaultfd is refused";
      return { state: "missing", detail, fix: "postcopy check userfaultfd" };
    }
    const detail = `this kernel's userfaultfd lacks it: ${what}`;
    return { state: "missing", detail, fix: `boot Linux ${since} or later` };
  };
}

function probePagemapScan({ kernel }: Facts): ProbeResult {
  const why = kernel === null ? "it needs Linux" : kernel.pagemapScan;
  if (why === null) return { state: "ok", detail: "written pages are found in one step" };
  return {
    state: "missing",
    detail: `no dirty tracking, so every migration is pure postcopy: ${why}`,
    fix: "boot Linux 6.7 or later, and see postcopy check userfaultfd",
  };
}

function probePriority(facts: Facts): ProbeResult {
  const { hasCapability, niceLimit, realTimeLimit, user } = facts;
  if (hasCapability(CAP_SYS_NICE) || realTimeLimit > 0) {
    return { state: "ok", detail: "threads that serve faults may go first, in real time" };
  }
  const fix = `echo '${user.name} - rtprio 1' | sudo tee /etc/security/limits.d/postcopy.conf # log in again`;
  return niceLimit >= NICE_LIMIT_WANTED
    ? { state: "limited", detail: "threads that serve faults are favoured among all others", fix }
    : { state: "missing", detail: "threads that serve faults compete with all others", fix };
}

function probeCores({ cores }: Facts): ProbeResult {
  const detail = cores === 1 ? "1 core" : `${formatCount(cores)} cores`;
  if (cores >= CORES_MIN) return { state: "ok", detail };
  return { state: "limited", detail: `${detail}: faults wait for bulk data`, fix: "add a core" };
}

function probeHugePages({ hugePools }: Facts): ProbeResult {
  const pool = hugePools.find(({ pageSize }) => pageSize === HUGE_PAGE_SIZE);
  // The pool is set, not enlarged, so that what others use of it must be in the number.
  const fix = `sudo sysctl -w vm.nr_hugepages=${(pool?.total ?? 0) + HUGE_PAGES_HINT}`;
  const detail = hugePools
    .filter(({ total }) => total > 0)
    .map(({ pageSize, total, free }) => {
      const bytes = formatBytes(free * pageSize);
      return `${formatPageSize(pageSize)}: ${formatCount(free)} of ${formatCount(total)} free (${bytes})`;
    })
    .join(", ");
  if (detail === "") return { state: "missing", detail: "none reserved", fix };
  return pool !== undefined && pool.free > 0
    ? { state: "ok", detail }
    : { state: "limited", detail, fix };
}

function probeMemlock({ kernel, memlockBytes, hasCapability }: Facts): ProbeResult {
  if (kernel !== null && kernel.memoryLock !== null) {
    const detail = `not a page may be locked (${kernel.memoryLock})`;
    return { state: "missing", detail, fix: "sudo prlimit --pid $$ --memlock=unlimited" };
  }
  if (memlockBytes === Infinity) return { state: "ok", detail: "no limit" };
  if (hasCapability(CAP_IPC_LOCK)) return { state: "ok", detail: "no limit, by CAP_IPC_LOCK" };
  const detail = `${formatBytes(memlockBytes)} may be locked; a guest with --mlock must fit`;
  if (memlockBytes >= MEMLOCK_MIN) return { state: "ok", detail };
  return { state: "limited", detail, fix: "sudo prlimit --pid $$ --memlock=unlimited" };
}

function probePidfd({ kernel }: Facts): ProbeResult {
  if (kernel === null) return { state: "missing", detail: "it needs Linux" };
  const { processDescriptor } = kernel;
  if (processDescriptor === null) return { state: "ok", detail: "a process's end can be watched" };
  const fix = "boot a kernel from Linux 5.3 on";
  return { state: "missing", detail: `pidfd_open failed: ${processDescriptor}`, fix };
}

function probeKvm({ kvm, user }: Facts): ProbeResult {
  if (kvm === "ok") return { state: "ok", detail: "/dev/kvm" };
  if (kvm === "denied") {
    const fix = `sudo usermod -aG kvm ${user.name} # log in again`;
    return { state: "missing", detail: "/dev/kvm is not yours to use", fix };
  }
  return {
    state: "missing",
    detail: "no /dev/kvm: QEMU emulates, stress needs none",
    fix: "sudo modprobe kvm_intel || sudo modprobe kvm_amd",
  };
}

function probeQemu({ qemu }: Facts): ProbeResult {
  const fix = "install QEMU 7.2 or later to move guests of its own";
  if (qemu === null)
    return { state: "missing", detail: "not in PATH; only its guests need it", fix };
  const detail = `QEMU ${qemu.version} (${qemu.path})`;
  return isAtLeast(qemu.version, QEMU_MIN)
    ? { state: "ok", detail }
    : { state: "limited", detail: `${detail}: not tested with so old a one`, fix };
}

const {
  UFFD_FEATURE_EVENT_REMOVE,
  UFFD_FEATURE_EXACT_ADDRESS,
  UFFD_FEATURE_MISSING_HUGETLBFS,
  UFFD_FEATURE_MISSING_SHMEM,
  UFFD_FEATURE_WP_ASYNC,
} = UFFD;

/** All probes, in the order in which they are shown. */
export const PROBES = [
  { name: "kernel", group: "required", roles: BOTH, run: probeKernel },
  { name: "architecture", group: "required", roles: BOTH, run: probeArchitecture },
  { name: "page-size", group: "required", roles: BOTH, run: probePageSize },
  { name: "userfaultfd", group: "required", roles: DEST, run: probeUserfault },
  {
    name: "event-remove",
    group: "required",
    roles: DEST,
    run: probeFeature(UFFD_FEATURE_EVENT_REMOVE, "told what a guest discards", "4.11"),
  },
  {
    name: "wp-async",
    group: "recommended",
    roles: SOURCE,
    run: probeFeature(UFFD_FEATURE_WP_ASYNC, "noting writes without stopping them", "6.7"),
  },
  { name: "pagemap-scan", group: "recommended", roles: SOURCE, run: probePagemapScan },
  { name: "priority", group: "recommended", roles: BOTH, run: probePriority },
  { name: "cores", group: "recommended", roles: BOTH, run: probeCores },
  { name: "privilege", group: "optional", roles: DEST, run: probePrivilege },
  { name: "sysctl", group: "optional", roles: DEST, run: probeSysctl },
  { name: "device", group: "optional", roles: DEST, run: probeDevice },
  {
    name: "missing-hugetlbfs",
    group: "optional",
    roles: DEST,
    run: probeFeature(UFFD_FEATURE_MISSING_HUGETLBFS, "faults in huge pages", "4.11"),
  },
  {
    name: "missing-shmem",
    group: "optional",
    roles: DEST,
    run: probeFeature(UFFD_FEATURE_MISSING_SHMEM, "faults in shared memory", "4.11"),
  },
  {
    name: "exact-address",
    group: "optional",
    roles: DEST,
    run: probeFeature(UFFD_FEATURE_EXACT_ADDRESS, "fault addresses to the byte", "5.18"),
  },
  { name: "hugepages", group: "optional", roles: BOTH, run: probeHugePages },
  { name: "memlock", group: "optional", roles: DEST, run: probeMemlock },
  { name: "pidfd", group: "optional", roles: BOTH, run: probePidfd },
  { name: "kvm", group: "optional", roles: BOTH, run: probeKvm },
  { name: "qemu", group: "optional", roles: BOTH, run: probeQemu },
] as const satisfies readonly Probe[];
