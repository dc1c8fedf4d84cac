/**
 * Who may have a userfaultfd. The kernel grants it in three ways, any of which is enough (see
 * userfaultfd(2)): to root and CAP_SYS_PTRACE, to everyone by vm.unprivileged_userfaultfd, and to
 * whoever may open /dev/userfaultfd. A fourth, user mode only, is open to all, but does not see the
 * faults of system calls that touch guest memory.
 */
import type { Facts } from "./facts.ts";
import type { ProbeResult } from "./probe.ts";

/** Bit of capabilities(7). */
const CAP_SYS_PTRACE = 19;

const SECCOMP_FIX = "podman run --security-opt seccomp=unconfined … # or docker, and so on";

/** Whether one can be had at all, and how. */
export function probeUserfault({ kernel, seccomp }: Facts): ProbeResult {
  if (kernel === null)
    return { state: "missing", detail: "it needs Linux", fix: "use a Linux host" };
  const { userfault } = kernel;
  if (userfault["system call"] === null) return { state: "ok", detail: "by the system call" };
  if (userfault["/dev/userfaultfd"] === null) {
    return { state: "ok", detail: "by /dev/userfaultfd" };
  }
  const fix = "sudo sysctl -w vm.unprivileged_userfaultfd=1";
  if (userfault["user mode only"] === null) {
    const detail = "user mode only: a system call that touches a page not here yet fails";
    return { state: "limited", detail, fix };
  }
  const errno = userfault["system call"];
  if (errno === "ENOSYS") {
    return {
      state: "missing",
      detail: "this kernel has none, or a container hides it (ENOSYS)",
      fix: seccomp ? SECCOMP_FIX : "boot a kernel with CONFIG_USERFAULTFD",
    };
  }
  return { state: "missing", detail: `refused (${errno})`, fix: seccomp ? SECCOMP_FIX : fix };
}

/** The first way: root or CAP_SYS_PTRACE. */
export function probePrivilege({
  user,
  hasCapability,
  kernel,
  seccomp,
  executable,
}: Facts): ProbeResult {
  if (hasCapability(CAP_SYS_PTRACE)) {
    const detail = user.id === 0 ? "root" : "CAP_SYS_PTRACE";
    // A capability that is there and does not help has been overruled by a filter.
    if (kernel?.userfault["system call"] !== null && seccomp) {
      const overruled = `${detail}, but a seccomp filter forbids the system call`;
      return { state: "missing", detail: overruled, fix: SECCOMP_FIX };
    }
    return { state: "ok", detail };
  }
  return {
    state: "missing",
    detail: "neither root nor CAP_SYS_PTRACE",
    fix: `sudo setcap cap_sys_ptrace=ep ${executable}`,
  };
}

/** The second way: the setting for everyone. */
export function probeSysctl({ unprivilegedUserfault }: Facts): ProbeResult {
  const name = "vm.unprivileged_userfaultfd";
  if (unprivilegedUserfault === 1) return { state: "ok", detail: `${name} is 1: for everyone` };
  if (unprivilegedUserfault === null) {
    const detail = `no ${name}: before Linux 5.2 everyone may`;
    return { state: "limited", detail };
  }
  return {
    state: "missing",
    detail: `${name} is ${unprivilegedUserfault}: not for everyone`,
    fix: `sudo sysctl -w ${name}=1`,
  };
}

/** The third way: permission on the device. */
export function probeDevice({ kernel, user }: Facts): ProbeResult {
  const errno = kernel === null ? "no Linux" : kernel.userfault["/dev/userfaultfd"];
  if (errno === null) return { state: "ok", detail: "/dev/userfaultfd" };
  if (errno === "EACCES" || errno === "EPERM") {
    return {
      state: "missing",
      detail: `/dev/userfaultfd is not yours to use (${errno})`,
      fix: `sudo chown ${user.name} /dev/userfaultfd`,
    };
  }
  return {
    state: "missing",
    detail: `no usable /dev/userfaultfd (${errno}): Linux 6.1 has it`,
    fix: "boot Linux 6.1 or later",
  };
}
