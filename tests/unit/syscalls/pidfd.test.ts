import { describe, expect, test } from "bun:test";
import { closeDescriptor, POLL, PollSet } from "../../../syscalls/descriptor.ts";
import { killProcess, openProcess } from "../../../syscalls/pidfd.ts";
import { spawn } from "../../helpers/spawn.ts";

describe("the descriptor of a process", () => {
  test("becomes readable when the process ends, and not before", async () => {
    await using child = spawn(["cat"]);
    const fd = openProcess(child.pid);
    try {
      const poll = new PollSet();
      poll.add(fd, POLL.POLLIN);
      expect(poll.wait(0)).toBe(0);
      child.kill();
      await child.finish();
      expect(poll.wait(10_000)).toBe(1);
    } finally {
      closeDescriptor(fd);
    }
  });

  test("cannot be had for a process that is not there", () => {
    // PIDs end at 2^22.
    expect(() => openProcess(2 ** 22 + 1)).toThrow("pidfd_open(pid 4194305) failed");
  });

  test("ends it, and says when there is nothing left to end", async () => {
    await using child = spawn(["cat"]);
    const fd = openProcess(child.pid);
    try {
      expect(killProcess(fd)).toBe(true);
      expect(await child.finish()).toMatchObject({ signal: "SIGKILL" });
      expect(killProcess(fd)).toBe(false);
    } finally {
      closeDescriptor(fd);
    }
  });
});
