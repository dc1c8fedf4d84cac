/** The end of filling a VMM's memory: none of it stays registered, or that is a failure. */
import { describe, expect } from "bun:test";
import { openSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { MMAN } from "../../../syscalls/abi/mman.ts";
import { NR, syscall } from "../../../syscalls/raw.ts";
import { Userfault } from "../../../syscalls/userfaultfd.ts";
import { releaseForeignMemory } from "../../../src/dest/foreign-memory.ts";
import { PostcopyError } from "../../../src/util/errors.ts";
import { ArrivingMemory } from "../../helpers/arriving-memory.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";

const PAGE = 4096;
const MAP_FIXED = 0x10;
const foreignTest = requireOrSkip(needUserfaultfd());

/** A VMM whose memory cannot be unregistered, or is gone. */
class Stubborn extends Userfault {
  placing = 0;

  override tryUnregister(): number {
    return -ERRNO.ENOMEM;
  }

  override zero(): number {
    return this.placing;
  }
}

describe("the memory of a VMM that is filled", () => {
  foreignTest("is unregistered around what was put in its place unheard", () => {
    using descriptors = new Descriptors();
    using arriving = new ArrivingMemory();
    const { userfault } = arriving.memory;
    const { address } = arriving.block(0);
    // A mapping of a file of a disk, with which the kernel refuses the range as a whole; and a gap.
    const file = descriptors.add(openSync(import.meta.path, "r"));
    const flags = MMAN.MAP_PRIVATE | MAP_FIXED;
    const at = address + 21 * PAGE;
    expect(syscall(NR.mmap, at, PAGE, MMAN.PROT_READ, flags, file, 0)).toBe(at);
    expect(syscall(NR.munmap, address + 40 * PAGE, 8 * PAGE)).toBe(0);
    expect(userfault.tryUnregister(address, 64 * PAGE)).toBe(-ERRNO.EINVAL);
    releaseForeignMemory(userfault, arriving.map, arriving.blocks);
    for (const page of [0, 20, 22, 39, 48, 63, 64, 79]) {
      expect(userfault.zero(address + page * PAGE, PAGE)).toBe(-ERRNO.ENOENT);
    }
    // So that what owns it can unregister it.
    expect(syscall(NR.munmap, at, PAGE)).toBe(0);
  });

  foreignTest(
    "fails by name where the kernel cannot unregister it, unless its VMM has ended",
    () => {
      using arriving = new ArrivingMemory();
      const stubborn = new Stubborn(arriving.memory.userfault.fd);
      const release = (): void => releaseForeignMemory(stubborn, arriving.map, arriving.blocks);
      let code: string | undefined;
      try {
        release();
      } catch (error) {
        if (error instanceof PostcopyError) ({ code } = error);
      }
      expect(code).toBe("STILL_REGISTERED");
      stubborn.placing = -ERRNO.ESRCH;
      release();
    },
  );
});
