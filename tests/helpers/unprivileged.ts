/**
 * Running the program as somebody who may not do everything: as the user nobody, or where a filter
 * of system calls (seccomp(2)), as of a container, hides userfaultfd.
 */
import { chmodSync, writeFileSync } from "node:fs";

import type { Need } from "./need.ts";
import type { TemporaryDirectory } from "./temporary-directory.ts";

const NOBODY = "65534";

/** Words before a command that run it as nobody, without any capability. */
export const AS_NOBODY: readonly string[] = [
  "setpriv",
  `--reuid=${NOBODY}`,
  `--regid=${NOBODY}`,
  "--clear-groups",
  "--bounding-set=-all",
  "--inh-caps=-all",
];

/** Whether this program can be run as nobody: it must be root and its files must be readable. */
export function needNobody(): Need {
  const words = [...AS_NOBODY, process.execPath, "--version"];
  const missing = Bun.spawnSync(words).success
    ? undefined
    : "run as root, with Bun and the checkout readable for everyone";
  return { what: "to become the user nobody", missing };
}

/**
 * Forbids userfaultfd(2) with EPERM and runs a program. The filter looks at the number alone: the
 * program is of the architecture that the headers are for.
 */
const FILTER_SOURCE = `
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
  struct sock_filter steps[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = { sizeof steps / sizeof *steps, steps };
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 125;
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 125;
  execvp(argv[1], argv + 1);
  return 127;
}
`;

/** Compiles the filter; gives the words before a command that is to run under it, as nobody. */
export function withoutUserfaultfd(directory: TemporaryDirectory): string[] {
  const source = directory.file("filter.c");
  const program = directory.file("filter");
  writeFileSync(source, FILTER_SOURCE);
  const { success, stderr } = Bun.spawnSync(["cc", "-O1", "-o", program, source]);
  if (!success) throw new Error(`the filter cannot be compiled:\n${stderr.toString()}`);
  chmodSync(directory.path, 0o755);
  return [...AS_NOBODY, program];
}
