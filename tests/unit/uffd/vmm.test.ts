/** A VMM that comes: what it hands over is made fit for use. */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { sendWithDescriptors } from "../../../syscalls/ancillary.ts";
import { FCNTL } from "../../../syscalls/abi/file.ts";
import { setNonBlocking } from "../../../syscalls/descriptor.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { makeSocket, startConnect } from "../../../syscalls/socket.ts";
import { openUserfault } from "../../../syscalls/userfaultfd.ts";
import { openListener } from "../../../src/channel/listen.ts";
import { receiveVmm } from "../../../src/guests/uffd/vmm.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const userfaultTest = requireOrSkip(needUserfaultfd());
const MESSAGE = JSON.stringify([{ base_host_virt_addr: 0x1000, size: 4096, offset: 0 }]);

/** The open flags of a descriptor's file. */
function flagsOf(fd: number): number {
  const text = readFileSync(`/proc/self/fdinfo/${fd}`, "latin1");
  return parseInt(/^flags:\s+([0-7]+)/m.exec(text)?.[1] ?? "", 8);
}

userfaultTest("a userfaultfd that blocks, and so cannot be polled, blocks no more", async () => {
  await using directory = new TemporaryDirectory("vmm-blocks");
  using descriptors = new Descriptors();
  const path = directory.file("socket");
  const listenFd = descriptors.add(openListener([{ family: "unix", path }]).fd);
  const { userfault } = openUserfault();
  descriptors.add(userfault.fd);
  userfault.enable(0);
  setNonBlocking(userfault.fd, false);
  const fd = descriptors.add(makeSocket("unix"));
  expect(startConnect(fd, { family: "unix", path })).toBe(0);
  const { address, bytes } = mapScratch(MESSAGE.length);
  bytes.set(new TextEncoder().encode(MESSAGE));
  expect(sendWithDescriptors(fd, address, MESSAGE.length, [userfault.fd])).toBe(MESSAGE.length);
  const vmm = receiveVmm({ listenFd, stopFd: descriptors.event(), timeoutMs: 10_000 });
  for (const each of [vmm.handover.userfaultFd, vmm.connection, vmm.processFd]) {
    descriptors.add(each);
  }
  expect(flagsOf(vmm.handover.userfaultFd) & FCNTL.O_NONBLOCK).toBe(FCNTL.O_NONBLOCK);
});
