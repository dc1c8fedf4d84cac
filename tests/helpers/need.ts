/**
 * What a test needs of the machine it runs on. On a developer's machine that lacks it the test is
 * skipped; with CI=true it fails, because a skip there would quietly test nothing for ever:
 *
 *     const qemuTest = requireOrSkip(needQemu(), needUserfaultfd());
 *     qemuTest("the guest arrives", async () => { … });
 */
import { test } from "bun:test";

import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { tryUserfaultWay } from "../../syscalls/userfaultfd.ts";
import type { UserfaultWay } from "../../syscalls/userfaultfd.ts";
import { LONG_TEST_MS } from "./deadline.ts";
import { findChromium } from "./browser.ts";
import { findQemu } from "./qemu.ts";

/** One thing that is needed; `missing` says how to get it, and is undefined where it is there. */
export interface Need {
  what: string;
  missing: string | undefined;
}

/** `test` of bun:test, with LONG_TEST_MS as its limit if none is given. */
export type TestFunction = (
  name: string,
  body: () => void | Promise<unknown>,
  limitMs?: number,
) => void;

/** Whether the run must not skip anything. */
export function isCi(environment: Record<string, string | undefined> = process.env): boolean {
  return environment["CI"] === "true";
}

/**
 * `test` where all needs are met. Otherwise a function that registers each test as skipped, or,
 * with CI=true, as one that fails and says what is missing.
 */
export function requireOrSkip(...needs: readonly Need[]): TestFunction {
  const missing = needs.filter((need) => need.missing !== undefined);
  if (missing.length === 0)
    return (name, body, limitMs = LONG_TEST_MS) => test(name, body, limitMs);
  const why = missing.map((need) => `${need.what} is missing; ${need.missing}`).join("\n");
  if (!isCi()) return (name) => test.skip(name, () => undefined);
  return (name) =>
    test(name, () => {
      throw new Error(`${why}\n(with CI=true a test that cannot run has failed)`);
    });
}

export function needQemu(): Need {
  return {
    what: "QEMU",
    missing: findQemu() === null ? "install the package qemu-system-x86" : undefined,
  };
}

/** A userfaultfd that also sees the faults of system calls, as QEMU's and the roles' must. */
export function needUserfaultfd(): Need {
  const ways: UserfaultWay[] = ["system call", "/dev/userfaultfd"];
  const allowed = ways.some((way) => {
    const fd = tryUserfaultWay(way);
    if (fd >= 0) closeDescriptor(fd);
    return fd >= 0;
  });
  return {
    what: "the right to use userfaultfd",
    missing: allowed ? undefined : "run as root, or: sysctl vm.unprivileged_userfaultfd=1",
  };
}

export function needCompiler(): Need {
  return {
    what: "a C compiler",
    missing: Bun.which("cc") === null ? "install the packages gcc and libc6-dev" : undefined,
  };
}

/** strace, which also lets system calls fail on purpose. */
export function needStrace(): Need {
  return {
    what: "strace",
    missing: Bun.which("strace") === null ? "install the package strace" : undefined,
  };
}

export function needChromium(): Need {
  return {
    what: "Chromium",
    missing: findChromium() === null ? "install the package chromium" : undefined,
  };
}
