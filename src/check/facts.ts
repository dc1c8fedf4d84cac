/**
 * What `check` knows of this host, read once. Plain data: the probes only look at it, so that a
 * test can give them a host that is not there.
 */
import { accessSync, constants, readdirSync, readFileSync } from "node:fs";
import { availableParallelism, release } from "node:os";
import type { KernelFacts } from "./kernel.ts";

/** A pool of huge pages (/sys/kernel/mm/hugepages). */
export interface HugePool {
  pageSize: number;
  total: number;
  free: number;
}

export interface Facts {
  platform: string;
  architecture: string;
  kernelRelease: string;
  /** Bytes of the kernel's base page. */
  pageSize: number;
  cores: number;
  user: { id: number; name: string };
  /** Effective capabilities of capabilities(7), by bit number. */
  hasCapability: (bit: number) => boolean;
  /** A seccomp filter is in force, as in most containers. */
  seccomp: boolean;
  kernel: KernelFacts | null;
  /** vm.unprivileged_userfaultfd; null where there is no such setting (before Linux 5.2). */
  unprivilegedUserfault: number | null;
  hugePools: readonly HugePool[];
  /** Bytes; Infinity for no limit. */
  memlockBytes: number;
  /** RLIMIT_NICE: nice values down to 20 minus this are allowed. */
  niceLimit: number;
  /** RLIMIT_RTPRIO: the highest priority in real time that is allowed. */
  realTimeLimit: number;
  kvm: "ok" | "absent" | "denied";
  qemu: { path: string; version: string } | null;
  /** The file of this program, for commands that grant it something. */
  executable: string;
}

/** Longest wait for `qemu --version`. */
const QEMU_VERSION_MS_MAX = 5000;
/** Entry of the auxiliary vector with the page size (linux/auxvec.h). */
const AT_PAGESZ = 6;
const AUXV_ENTRY_BYTES = 16;

const ARCHITECTURES: ReadonlyMap<string, string> = new Map([
  ["x64", "x86_64"],
  ["arm64", "aarch64"],
]);

/** Reads all facts. What cannot be read counts as absent. */
export async function gatherFacts(): Promise<Facts> {
  const status = readText("/proc/self/status");
  const limits = readText("/proc/self/limits");
  const capabilities = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  const id = process.geteuid?.() ?? -1;
  return {
    platform: process.platform,
    architecture: process.arch,
    kernelRelease: release(),
    pageSize: readPageSize(),
    cores: availableParallelism(),
    user: { id, name: process.env["USER"] ?? String(id) },
    hasCapability: (bit) => ((capabilities >> BigInt(bit)) & 1n) === 1n,
    seccomp: /^Seccomp:\s*2$/m.test(status),
    kernel: await askKernel(),
    unprivilegedUserfault: readNumber("/proc/sys/vm/unprivileged_userfaultfd"),
    hugePools: readHugePools(),
    memlockBytes: readLimit(limits, "Max locked memory"),
    niceLimit: readLimit(limits, "Max nice priority"),
    realTimeLimit: readLimit(limits, "Max realtime priority"),
    kvm: readKvm(),
    qemu: findQemu(),
    executable: process.execPath,
  };
}

/** The system calls are loaded only where they can work: their numbers depend on the machine. */
async function askKernel(): Promise<KernelFacts | null> {
  if (process.platform !== "linux" || !ARCHITECTURES.has(process.arch)) return null;
  return (await import("./kernel.ts")).askKernel();
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function readNumber(path: string): number | null {
  const text = readText(path).trim();
  return /^\d+$/.test(text) ? Number(text) : null;
}

/** The page size that the kernel told this process at its start; 0 when it cannot be read. */
function readPageSize(): number {
  try {
    const bytes = readFileSync("/proc/self/auxv");
    for (let at = 0; at + AUXV_ENTRY_BYTES <= bytes.length; at += AUXV_ENTRY_BYTES) {
      if (bytes.readUInt32LE(at) === AT_PAGESZ) return bytes.readUInt32LE(at + 8);
    }
  } catch {
    // No /proc: the probe says that the size is unknown.
  }
  return 0;
}

/** The soft limit of a line of /proc/self/limits. */
function readLimit(limits: string, name: string): number {
  const value = new RegExp(`^${name}\\s+(\\S+)`, "m").exec(limits)?.[1];
  return value === "unlimited" ? Infinity : Number(value ?? 0);
}

function readHugePools(): HugePool[] {
  const root = "/sys/kernel/mm/hugepages";
  let names: string[] = [];
  try {
    names = readdirSync(root);
  } catch {
    // A kernel without huge pages has no such directory.
  }
  return names.flatMap((name) => {
    const kib = Number(/^hugepages-(\d+)kB$/.exec(name)?.[1] ?? 0);
    if (kib === 0) return [];
    const total = readNumber(`${root}/${name}/nr_hugepages`) ?? 0;
    const free = readNumber(`${root}/${name}/free_hugepages`) ?? 0;
    return [{ pageSize: kib * 1024, total, free }];
  });
}

function readKvm(): Facts["kvm"] {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return "ok";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT" ? "absent" : "denied";
  }
}

/** The QEMU of this machine's architecture, as distributions name it. */
function findQemu(): Facts["qemu"] {
  const machine = ARCHITECTURES.get(process.arch);
  const path = Bun.which(`qemu-system-${machine}`) ?? Bun.which("/usr/libexec/qemu-kvm");
  if (path === null) return null;
  const { stdout } = Bun.spawnSync([path, "--version"], { timeout: QEMU_VERSION_MS_MAX });
  const version = /version (\d+(?:\.\d+)+)/.exec(stdout.toString())?.[1];
  return version === undefined ? null : { path, version };
}
