/** What is warned about when a VMM has handed its memory over: what cannot be seen of it later. */
import { expect } from "bun:test";
import { UFFD } from "../../../syscalls/abi/userfaultfd.ts";
import { makeMemoryFile, mapFile } from "../../../syscalls/memfd.ts";
import { mapAnonymous } from "../../../syscalls/memory.ts";
import { openUserfault } from "../../../syscalls/userfaultfd.ts";
import type { Output } from "../../../src/commands/common.ts";
import { sayHandover } from "../../../src/commands/vmm-handover.ts";
import { sharesMemory } from "../../../src/guests/uffd/vmm-process.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";

const PAGE = 4096;
const userfaultTest = requireOrSkip(needUserfaultfd());

/** The warnings about this process as a VMM with one region. */
function warnings(features: number, address: number): string[] {
  using descriptors = new Descriptors();
  const { userfault } = openUserfault();
  const userfaultFd = descriptors.add(userfault.fd);
  userfault.enable(features);
  const said: string[] = [];
  const output = {
    warn: (code: string, message: string) => void said.push(`${code} ${message}`),
    events: { emit: () => undefined },
  } as unknown as Output;
  const regions = [{ address, length: PAGE, offset: 0, pageSize: PAGE }];
  const vmm = { pid: process.pid, processFd: -1, connection: -1 };
  sayHandover({ ...vmm, handover: { regions, userfaultFd } }, "has handed over", output);
  return said;
}

userfaultTest("a VMM is told what it must leave, as it would not be heard", () => {
  using memory = mapAnonymous(PAGE);
  const { UFFD_FEATURE_EVENT_REMOVE: remove, UFFD_FEATURE_EVENT_UNMAP: unmap } = UFFD;
  expect(warnings(remove, memory.address)).toEqual([]);
  const [said = "", ...more] = warnings(unmap, memory.address);
  expect(more).toEqual([]);
  expect(said).toStartWith("VMM_UNHEARD");
  expect(said).toContain("must give no memory back (balloon, free page reporting)");
});

userfaultTest("a VMM whose memory others may map is warned about them", () => {
  using descriptors = new Descriptors();
  using memory = mapFile(descriptors.add(makeMemoryFile("vmm", PAGE)), PAGE);
  const [said = ""] = warnings(UFFD.UFFD_FEATURE_EVENT_REMOVE, memory.address);
  expect(said).toStartWith("VMM_SHARED");
  const region = { address: memory.address, length: PAGE, offset: 0, pageSize: PAGE };
  expect(sharesMemory(process.pid, [{ ...region, address: memory.address - 2 ** 30 }])).toBe(false);
  expect(sharesMemory(0, [region])).toBeUndefined();
});
