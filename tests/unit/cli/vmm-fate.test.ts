/** What becomes of a VMM whose memory cannot be filled: killed, or left, and never left to zeros. */
import { expect, test } from "bun:test";
import { closeDescriptor } from "../../../syscalls/descriptor.ts";
import { openProcess } from "../../../syscalls/pidfd.ts";
import { openUserfault } from "../../../syscalls/userfaultfd.ts";
import type { Output } from "../../../src/commands/common.ts";
import { VmmFate } from "../../../src/commands/vmm-fate.ts";
import type { OnFailure } from "../../../src/commands/vmm-fate.ts";
import { keepsUserfault } from "../../../src/guests/uffd/vmm-process.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { spawn } from "../../helpers/spawn.ts";

const userfaultTest = requireOrSkip(needUserfaultfd());

/** Fails for a VMM that has no userfaultfd of its own; what was said, and whether it is killed. */
async function fail(
  onFailure: OnFailure,
  options: { successor?: string; seen?: boolean } = {},
): Promise<{ said: string[]; killed: boolean }> {
  await using vmm = spawn(["cat"]);
  const said: string[] = [];
  const output = { warn: (code: string) => void said.push(code) } as unknown as Output;
  const seen = options.seen ?? true;
  const fate = new VmmFate({
    vmm: {
      handover: { regions: [], userfaultFd: -1 },
      pid: seen ? vmm.pid : 0,
      processFd: seen ? openProcess(vmm.pid) : -1,
      connection: -1,
    },
    ...{ onFailure, successor: options.successor, output, memory: () => undefined },
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

test("unless somebody keeps a duplicate", async () => {
  const successor = "postcopy dest --resume";
  expect(await fail("freeze", { successor })).toEqual({ said: ["VMM_FROZEN"], killed: false });
  expect(await fail("kill", { successor })).toEqual({ said: ["VMM_KILLED"], killed: true });
});

test("one in another pid namespace cannot be killed, which is said", async () => {
  expect(await fail("kill", { seen: false })).toEqual({ said: ["VMM_FROZEN"], killed: false });
});

userfaultTest("whether a process has a userfaultfd open is seen from outside", () => {
  const { userfault } = openUserfault();
  expect(keepsUserfault(process.pid)).toBe(true);
  closeDescriptor(userfault.fd);
  expect(keepsUserfault(process.pid)).toBe(false);
  expect(keepsUserfault(0)).toBeUndefined();
});
