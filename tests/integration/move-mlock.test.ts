/** `dest --mlock`: memory is locked, except while pages must be able to be missing. */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";

import { waitUntil } from "../helpers/deadline.ts";
import { expectMoved, pages, startDest, startSource } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import type { Need } from "../helpers/need.ts";

/** CAP_IPC_LOCK of capabilities(7): without it a guest is soon beyond RLIMIT_MEMLOCK. */
const CAP_IPC_LOCK = 14;

function needMemoryLocking(): Need {
  const status = readFileSync("/proc/self/status", "latin1");
  const effective = BigInt(`0x${/^CapEff:\s+([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  const allowed = ((effective >> BigInt(CAP_IPC_LOCK)) & 1n) === 1n;
  return { what: "CAP_IPC_LOCK", missing: allowed ? undefined : "run as root" };
}

const lockTest = requireOrSkip(needUserfaultfd(), needMemoryLocking());

/** Locked memory of a process in KiB (VmLck of proc_pid_status(5)). */
function lockedKib(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^VmLck:\s+(\d+) kB$/m.exec(status)?.[1]);
}

/** Moves slowly, lives on for long enough to be looked at, and discards also what is locked. */
const GUEST = "stress:size=16MiB,hot=0.01,hot-share=1,discard=0.1,rate=1MiB/s,duration=1s";
const SLOW = ["--switchover", "now", "--max-postcopy-bandwidth", "8MiB/s"] as const;

lockTest("--mlock is lifted for postcopy and then restored", async () => {
  await using dest = await startDest({ flags: ["--mlock"] });
  const { pid } = dest.program;
  expect(lockedKib(pid)).toBeGreaterThan(0);
  await using source = startSource({ to: dest.peer, guest: GUEST, flags: SLOW });
  await dest.event("running");
  expect(lockedKib(pid)).toBe(0);
  await dest.event("drained");
  // The guest's memory is a part of what is locked now.
  await waitUntil(() => lockedKib(pid) > 16 * 1024, "the guest to be locked into memory");
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sourceEnd, destEnd, pages("16MiB"));
});

lockTest("without --mlock nothing is locked", async () => {
  await using dest = await startDest();
  await using source = startSource({ to: dest.peer, guest: GUEST, flags: SLOW });
  await dest.event("drained");
  expect(lockedKib(dest.program.pid)).toBe(0);
  expectMoved(await source.end(), await dest.end(), pages("16MiB"));
});
