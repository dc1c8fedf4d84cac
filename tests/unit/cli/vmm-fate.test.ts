/** What becomes of a VMM whose memory cannot be filled: killed, or left, and never left to zeros. */
import { expect, test } from "bun:test";
import { constants } from "node:os";
import { join } from "node:path";
import { closeDescriptor } from "../../../syscalls/descriptor.ts";
import { openProcess } from "../../../syscalls/pidfd.ts";
import { openUserfault } from "../../../syscalls/userfaultfd.ts";
import type { Output } from "../../../src/commands/common.ts";
import { VmmFate } from "../../../src/commands/vmm-fate.ts";
import type { OnFailure } from "../../../src/commands/vmm-fate.ts";
import { keepsUserfault, userfaultIdentity } from "../../../src/guests/uffd/vmm-process.ts";
import { LONG_TEST_MS } from "../../helpers/deadline.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { PROJECT_ROOT, spawn } from "../../helpers/spawn.ts";

const userfaultTest = requireOrSkip(needUserfaultfd());

/** Fails for a VMM that has no userfaultfd of its own; what was said, and whether it is killed. */
async function fail(
  onFailure: OnFailure,
  options: { successor?: string; kept?: boolean; seen?: boolean } = {},
): Promise<{ said: string[]; killed: boolean }> {
  using descriptors = new Descriptors();
  await using vmm = spawn(["cat"]);
  const said: string[] = [];
  const output = { warn: (code: string) => void said.push(code) } as unknown as Output;
  const seen = options.seen ?? true;
  const fate = new VmmFate({
    vmm: {
      handover: { regions: [], userfaultFd: descriptors.event() },
      pid: seen ? vmm.pid : 0,
      processFd: seen ? openProcess(vmm.pid) : -1,
      connection: -1,
    },
    ...{ onFailure, successor: options.successor, output, memory: () => undefined },
    isKept: () => options.kept ?? false,
  });
  fate.fail("no reason");
  fate.fail("decided once");
  fate.close();
  const killed = fate.isOver;
  if (killed) expect(await vmm.finish()).toMatchObject({ signal: "SIGKILL" });
  else expect(vmm.running).toBe(true);
  return { said, killed };
}

test("one without a userfaultfd of its own is warned about, and killed in either case", async () => {
  for (const onFailure of ["kill", "freeze"] as const) {
    const { said, killed } = await fail(onFailure);
    expect({ said, killed }).toEqual({ said: ["VMM_UNPROTECTED", "VMM_KILLED"], killed: true });
  }
});

test("unless somebody keeps a duplicate, and not only would", async () => {
  const successor = "postcopy dest --resume";
  const killed = { said: ["VMM_KILLED"], killed: true };
  expect(await fail("freeze", { successor, kept: true })).toEqual({
    ...{ said: ["VMM_FROZEN"], killed: false },
  });
  expect(await fail("freeze", { successor })).toEqual(killed);
  expect(await fail("kill", { successor, kept: true })).toEqual(killed);
});

test("one in another pid namespace cannot be killed, which is said", async () => {
  expect(await fail("kill", { seen: false })).toEqual({ said: ["VMM_FROZEN"], killed: false });
});

userfaultTest("whether a process has just that userfaultfd open is seen from outside", () => {
  const open = [openUserfault().userfault.fd, openUserfault().userfault.fd] as const;
  const [first, second] = [userfaultIdentity(open[0]), userfaultIdentity(open[1])];
  closeDescriptor(open[0]);
  expect(keepsUserfault(process.pid, second)).toBe(true);
  // Where two of them cannot be told apart, one stands for the other.
  expect(keepsUserfault(process.pid, first)).toBe(first === second);
  closeDescriptor(open[1]);
  expect(keepsUserfault(process.pid, second)).toBe(false);
  expect(keepsUserfault(0, second)).toBeUndefined();
});

userfaultTest("a VMM that closes its own after the handover is not left to zeros", async () => {
  // This process is the one whose descriptors are looked at; what is killed is another one.
  for (const keeps of [true, false]) {
    await using victim = spawn(["cat"]);
    const own = openUserfault().userfault.fd;
    const said: string[] = [];
    const output = { warn: (code: string) => void said.push(code) } as unknown as Output;
    const fate = new VmmFate({
      vmm: {
        handover: { regions: [], userfaultFd: own },
        pid: process.pid,
        processFd: openProcess(victim.pid),
        connection: -1,
      },
      ...{ onFailure: "freeze", successor: undefined, isKept: () => false },
      ...{ output, memory: () => undefined },
    });
    if (!keeps) closeDescriptor(own);
    fate.fail("no reason");
    fate.close();
    expect(said).toEqual([keeps ? "VMM_FROZEN" : "VMM_KILLED"]);
    if (keeps) closeDescriptor(own);
  }
});

/** Makes one that cannot be killed, and waits. */
const WAITER = `
  const { VmmFate } = await import(${JSON.stringify(join(PROJECT_ROOT, "src/commands/vmm-fate.ts"))});
  new VmmFate({
    vmm: { handover: { regions: [], userfaultFd: 0 }, pid: 0, processFd: -1, connection: -1 },
    ...{ onFailure: "kill", successor: undefined, memory: () => undefined, isKept: () => false },
    output: { warn: (code) => console.log(code) },
  });
  setInterval(() => undefined, 1000);
  console.log("ready");
`;

test(
  "is decided whichever signal ends the process by default, of those that can be answered",
  async () => {
    const signals = ["QUIT", "ABRT", "ALRM", "VTALRM", "XCPU", "PROF", "IO"] as const;
    const ends = signals.map(async (name) => {
      const signal = `SIG${name}` as const;
      await using waiter = spawn([process.execPath, "-e", WAITER]);
      await waiter.stdout.waitForLine(/ready/);
      waiter.kill(signal);
      const { exitCode, stdout } = await waiter.finish();
      const said = stdout.trim().split("\n").at(-1);
      expect({ name, exitCode, said }).toEqual({
        ...{ name, exitCode: 128 + constants.signals[signal], said: "VMM_FROZEN" },
      });
    });
    await Promise.all(ends);
  },
  LONG_TEST_MS,
);
