import { describe, expect, test } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { UFFD } from "../../../syscalls/abi/userfaultfd.ts";
import { closeDescriptor } from "../../../syscalls/descriptor.ts";
import { mapAnonymous } from "../../../syscalls/memory.ts";
import {
  enabledFeatures,
  openUserfault,
  tryUserfaultWay,
  Userfault,
  USERFAULT_WAYS,
  userfaultFeatures,
} from "../../../syscalls/userfaultfd.ts";
import type { UserfaultWay } from "../../../syscalls/userfaultfd.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { startThread } from "../../helpers/test-thread.ts";
import { patternPages, UserfaultMemory } from "../../helpers/userfault-memory.ts";
import type * as GuestMemoryFixture from "../../fixtures/guest-memory.ts";

const userfaultTest = requireOrSkip(needUserfaultfd());
const EVENT_REMOVE = UFFD.UFFD_FEATURE_EVENT_REMOVE;
const PAGE = 4096;
const FIXTURE = import.meta.resolve("../../fixtures/guest-memory.ts");

/** Userfaultfds that this process has. */
function openUserfaults(): number {
  const links = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      // The descriptor of the directory itself is closed by now.
      return "";
    }
  });
  return links.filter((link) => link.includes("userfaultfd")).length;
}

function guestThread() {
  return startThread<typeof GuestMemoryFixture>(FIXTURE);
}

describe("a fault", () => {
  userfaultTest("waits for the page and then sees all of it", async () => {
    using memory = new UserfaultMemory(4, 0);
    await using guest = await guestThread();
    const source = patternPages(4);
    const reading = guest.call("readBytes", memory.page(2), PAGE);
    expect(memory.events()).toEqual([
      { kind: "fault", address: memory.page(2), write: false, cause: "missing" },
    ]);
    expect(memory.userfault.copy(memory.page(2), source.address + 2 * PAGE, PAGE)).toBe(PAGE);
    expect(await reading).toEqual(new Uint8Array(PAGE).fill(3));
  });

  userfaultTest("by a write says so", async () => {
    using memory = new UserfaultMemory(1, 0);
    await using guest = await guestThread();
    const writing = guest.call("writeWord", memory.page(0), 77);
    expect(memory.events()).toEqual([
      { kind: "fault", address: memory.page(0), write: true, cause: "missing" },
    ]);
    expect(memory.userfault.zero(memory.page(0), PAGE)).toBe(PAGE);
    await writing;
    expect(memory.bytes(0).subarray(0, 8)).toEqual(Uint8Array.of(77, 0, 0, 0, 0, 0, 0, 0));
  });

  userfaultTest("inside of a system call is served as well", async () => {
    using memory = new UserfaultMemory(1, 0);
    using descriptors = new Descriptors();
    const [a] = descriptors.pair();
    await using guest = await guestThread();
    const writing = guest.call("writeToDescriptor", a, memory.page(0), 100);
    expect(memory.events()).toMatchObject([{ kind: "fault" }]);
    memory.userfault.copy(memory.page(0), patternPages(1).address, PAGE);
    expect(await writing).toBe(100);
  });

  userfaultTest("inside of a system call fails where only user mode is allowed", async () => {
    const fd = tryUserfaultWay("user mode only");
    const userfault = new Userfault(fd);
    using mapping = mapAnonymous(PAGE);
    using descriptors = new Descriptors();
    const [a] = descriptors.pair();
    try {
      userfault.enable(0);
      userfault.register(mapping.address, PAGE, UFFD.UFFDIO_REGISTER_MODE_MISSING);
      await using guest = await guestThread();
      const written = await guest.call("writeToDescriptor", a, mapping.address, 100);
      expect(written).toBe(-ERRNO.EFAULT);
    } finally {
      userfault.close();
    }
  });

  userfaultTest("of several threads on one page ends for all of them with one copy", async () => {
    using memory = new UserfaultMemory(1, 0);
    await using first = await guestThread();
    await using second = await guestThread();
    const reading = [first, second].map((guest) => guest.call("readWord", memory.page(0)));
    for (let seen = 0; seen < 2;) seen += memory.events().length;
    memory.userfault.copy(memory.page(0), patternPages(1).address, PAGE);
    expect(await Promise.all(reading)).toEqual([0x0101_0101, 0x0101_0101]);
  });

  userfaultTest("goes on after a wake, and faults again if the page is still missing", async () => {
    using memory = new UserfaultMemory(2, 0);
    await using guest = await guestThread();
    const reading = guest.call("readWord", memory.page(1));
    for (let turn = 0; turn < 3; turn++) {
      expect(memory.events()).toEqual([
        { kind: "fault", address: memory.page(1), write: false, cause: "missing" },
      ]);
      expect(memory.hasEvents).toBe(false);
      memory.userfault.wake(memory.page(0), 2 * PAGE);
    }
    memory.events();
    memory.userfault.copy(memory.page(1), patternPages(1).address, PAGE);
    expect(await reading).toBe(0x0101_0101);
  });

  userfaultTest("ends with zeros when the range is unregistered", async () => {
    using memory = new UserfaultMemory(2, 0);
    await using guest = await guestThread();
    const reading = guest.call("readWord", memory.page(1));
    memory.events();
    memory.userfault.unregister(memory.page(0), 2 * PAGE);
    expect(await reading).toBe(0);
  });
});

describe("placing", () => {
  userfaultTest("takes bytes from any address, aligned or not", () => {
    using memory = new UserfaultMemory(2, 0);
    const source = patternPages(3);
    expect(memory.userfault.copy(memory.page(0), source.address + 4095, 2 * PAGE)).toBe(2 * PAGE);
    expect([memory.bytes(0)[0], memory.bytes(0)[1], memory.bytes(1)[0]]).toEqual([1, 2, 2]);
    expect([memory.bytes(1)[1], memory.bytes(1)[4095]]).toEqual([3, 3]);
  });

  userfaultTest("never overwrites a page: EEXIST", () => {
    using memory = new UserfaultMemory(1, 0);
    const source = patternPages(2);
    expect(memory.userfault.copy(memory.page(0), source.address, PAGE)).toBe(PAGE);
    expect(memory.userfault.copy(memory.page(0), source.address + PAGE, PAGE)).toBe(-ERRNO.EEXIST);
    expect(memory.userfault.zero(memory.page(0), PAGE)).toBe(-ERRNO.EEXIST);
    expect(memory.bytes(0)[0]).toBe(1);
  });

  userfaultTest("stops before a page that is there, and says how far it came", () => {
    using memory = new UserfaultMemory(8, 0);
    const source = patternPages(8);
    const { userfault } = memory;
    userfault.copy(memory.page(5), source.address, PAGE);
    expect(userfault.copy(memory.page(0), source.address, 8 * PAGE)).toBe(5 * PAGE);
    expect(userfault.copy(memory.page(5), source.address, 3 * PAGE)).toBe(-ERRNO.EEXIST);
    expect(userfault.zero(memory.page(6), 2 * PAGE)).toBe(2 * PAGE);
    expect([4, 5, 6].map((page) => memory.bytes(page)[9])).toEqual([5, 1, 0]);
  });

  userfaultTest("zeros also stops before a page that is there", () => {
    using memory = new UserfaultMemory(4, 0);
    memory.userfault.copy(memory.page(3), patternPages(1).address, PAGE);
    expect(memory.userfault.zero(memory.page(0), 4 * PAGE)).toBe(3 * PAGE);
  });

  userfaultTest("outside of the registered range is an errno", () => {
    using memory = new UserfaultMemory(1, 0);
    using other = mapAnonymous(PAGE);
    const { userfault } = memory;
    expect(userfault.copy(other.address, memory.address, PAGE)).toBe(-ERRNO.ENOENT);
    expect(userfault.copy(memory.page(0) + 1, patternPages(1).address, PAGE)).toBe(-ERRNO.EINVAL);
    expect(userfault.copy(memory.page(0), 16, PAGE)).toBe(-ERRNO.EFAULT);
  });
});

describe("a discard", () => {
  userfaultTest("waits until its event is read; until then nothing is placed", async () => {
    using memory = new UserfaultMemory(8, EVENT_REMOVE);
    const source = patternPages(8);
    await using guest = await guestThread();
    memory.userfault.copy(memory.page(0), source.address, 8 * PAGE);
    const discarding = guest.call("discard", memory.page(2), 3 * PAGE);
    // The event shows in poll(2) when the discarder already waits for its reading.
    memory.awaitEvent();
    expect(memory.userfault.copy(memory.page(0), source.address, PAGE)).toBe(-ERRNO.EAGAIN);
    expect(memory.userfault.zero(memory.page(0), PAGE)).toBe(-ERRNO.EAGAIN);
    expect(memory.bytes(2)[0]).toBe(3);
    expect(memory.events()).toEqual([
      { kind: "remove", start: memory.page(2), end: memory.page(5) },
    ]);
    await discarding;
    expect(memory.userfault.copy(memory.page(2), source.address, PAGE)).toBe(PAGE);
    expect([memory.bytes(2)[0], memory.bytes(5)[0]]).toEqual([1, 6]);
  });

  userfaultTest("of a page that somebody waits for does not wake them", async () => {
    using memory = new UserfaultMemory(1, EVENT_REMOVE);
    await using reader = await guestThread();
    await using discarder = await guestThread();
    const reading = reader.call("readWord", memory.page(0));
    expect(memory.events()).toMatchObject([{ kind: "fault" }]);
    const discarding = discarder.call("discard", memory.page(0), PAGE);
    expect(memory.events()).toMatchObject([{ kind: "remove" }]);
    await discarding;
    expect(memory.hasEvents).toBe(false);
    memory.userfault.wake(memory.page(0), PAGE);
    expect(memory.events()).toMatchObject([{ kind: "fault" }]);
    memory.userfault.zero(memory.page(0), PAGE);
    expect(await reading).toBe(0);
  });
});

describe("a userfaultfd", () => {
  const ways: UserfaultWay[] = ["system call", "/dev/userfaultfd", "user mode only"];

  test("is tried for in a fixed order, the weakest last", () => {
    expect(USERFAULT_WAYS).toEqual(ways);
  });

  for (const way of ways) {
    const fd = tryUserfaultWay(way);
    if (fd >= 0) closeDescriptor(fd);
    const need = { what: way, missing: fd < 0 ? `this host forbids it (errno ${-fd})` : undefined };
    requireOrSkip(need)(`can be had by way of: ${way}`, () => {
      const userfault = new Userfault(tryUserfaultWay(way));
      try {
        expect(userfault.enable(EVENT_REMOVE) & EVENT_REMOVE).toBe(EVENT_REMOVE);
        using mapping = mapAnonymous(PAGE);
        const mode = UFFD.UFFDIO_REGISTER_MODE_MISSING;
        const ioctls = userfault.register(mapping.address, PAGE, mode);
        // _UFFDIO_WAKE, _UFFDIO_COPY and _UFFDIO_ZEROPAGE are bits 2 to 4.
        expect(ioctls & 0b11100).toBe(0b11100);
        expect(userfault.readEvents(() => undefined)).toBe(0);
      } finally {
        userfault.close();
      }
    });
  }

  userfaultTest("is opened in the first way that is allowed, and says which", () => {
    const { userfault, way } = openUserfault();
    userfault.close();
    expect(way === "user mode only").toBe(false);
  });

  userfaultTest("refuses features that the kernel lacks", () => {
    const { userfault } = openUserfault();
    try {
      const features = 2 ** 50;
      expect(() => userfault.enable(features)).toThrow("UFFDIO_API, features 0x4000000000000");
    } finally {
      userfault.close();
    }
  });

  userfaultTest("tells with which features it was enabled, and whether it was", () => {
    const { userfault } = openUserfault();
    try {
      expect(enabledFeatures(userfault.fd)).toBeUndefined();
      userfault.enable(EVENT_REMOVE);
      expect(enabledFeatures(userfault.fd)).toBe(EVENT_REMOVE);
    } finally {
      userfault.close();
    }
    expect(() => enabledFeatures(0)).toThrow("descriptor 0 is no userfaultfd");
  });

  userfaultTest("lists the features of the kernel without keeping a descriptor", () => {
    const features = userfaultFeatures();
    expect(features & EVENT_REMOVE).toBe(EVENT_REMOVE);
    const before = openUserfaults();
    for (let i = 0; i < 5; i++) userfaultFeatures();
    expect(openUserfaults()).toBe(before);
  });

  userfaultTest("refuses what is not memory of this process", () => {
    const { userfault } = openUserfault();
    try {
      userfault.enable(0);
      const register = (): number => userfault.register(4096, PAGE, 1);
      expect(register).toThrow("ioctl(UFFDIO_REGISTER, 4096 bytes, mode 1) failed: EINVAL");
      using mapping = mapAnonymous(PAGE);
      const protect = (): void => userfault.writeProtect(mapping.address, PAGE);
      expect(protect).toThrow("ioctl(UFFDIO_WRITEPROTECT, 4096 bytes) failed: ENOENT");
    } finally {
      userfault.close();
    }
  });
});
