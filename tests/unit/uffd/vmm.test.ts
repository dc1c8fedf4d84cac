/** Who is taken for a VMM, and who is not. */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { ERRNO } from "../../../syscalls/abi/errno.ts";
import { sendWithDescriptors } from "../../../syscalls/ancillary.ts";
import { FCNTL } from "../../../syscalls/abi/file.ts";
import { setNonBlocking } from "../../../syscalls/descriptor.ts";
import { mapAnonymous, mapScratch } from "../../../syscalls/memory.ts";
import { openPeerProcess } from "../../../syscalls/peer-process.ts";
import { makeSocket, startConnect } from "../../../syscalls/socket.ts";
import { openUserfault } from "../../../syscalls/userfaultfd.ts";
import { openListener, someoneListens } from "../../../src/channel/listen.ts";
import { HandoverError } from "../../../src/guests/uffd/handover.ts";
import { receiveVmm } from "../../../src/guests/uffd/vmm.ts";
import { Descriptors, isOpen } from "../../helpers/descriptors.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";
import { PROJECT_ROOT, spawn } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const userfaultTest = requireOrSkip(needUserfaultfd());
const mayUnshare = Bun.spawnSync(["unshare", "--pid", "--fork", "true"]).exitCode === 0;
const namespaceTest = requireOrSkip({
  what: "the right to make pid namespaces",
  missing: mayUnshare ? undefined : "run as root",
});
const BYTES = 16 * 4096;

/** A socket for VMMs, and this process as one that hands over what lies at `address`. */
class Meeting implements Disposable {
  readonly descriptors = new Descriptors();
  readonly path: string;
  readonly listenFd: number;

  constructor(directory: TemporaryDirectory) {
    this.path = directory.file("vmm");
    this.listenFd = this.descriptors.add(openListener([{ family: "unix", path: this.path }]).fd);
  }

  handOver(address: number, blocks = false): void {
    const { userfault } = openUserfault();
    this.descriptors.add(userfault.fd);
    userfault.enable(0);
    setNonBlocking(userfault.fd, !blocks);
    const text = JSON.stringify([{ base_host_virt_addr: address, size: BYTES, offset: 0 }]);
    const bytes = new TextEncoder().encode(text);
    const scratch = mapScratch(bytes.length);
    scratch.bytes.set(bytes);
    const fd = this.descriptors.add(makeSocket("unix"));
    startConnect(fd, { family: "unix", path: this.path });
    sendWithDescriptors(fd, scratch.address, bytes.length, [userfault.fd]);
  }

  receive() {
    const { listenFd } = this;
    return receiveVmm({ listenFd, stopFd: this.descriptors.event(), timeoutMs: 10_000 });
  }

  [Symbol.dispose](): void {
    this.descriptors[Symbol.dispose]();
  }
}

userfaultTest(
  "who only looks whether somebody listens is nobody, and the VMM is awaited",
  async () => {
    await using directory = new TemporaryDirectory("meeting");
    using meeting = new Meeting(directory);
    using memory = mapAnonymous(BYTES);
    expect(someoneListens(meeting.path)).toBe(true);
    expect(someoneListens(meeting.path)).toBe(true);
    meeting.handOver(memory.address);
    const { handover, pid, processFd, connection } = meeting.receive();
    for (const fd of [handover.userfaultFd, processFd, connection]) meeting.descriptors.add(fd);
    expect(pid).toBe(process.pid);
    expect(isOpen(processFd)).toBe(true);
    expect(handover.regions).toMatchObject([{ address: memory.address, length: BYTES }]);
  },
);

userfaultTest("who hands over memory that is not its own is refused by name", async () => {
  await using directory = new TemporaryDirectory("meeting");
  using meeting = new Meeting(directory);
  // Nothing is ever mapped so low by itself.
  meeting.handOver(0x10_0000);
  let refusal: unknown;
  try {
    meeting.receive();
  } catch (error) {
    refusal = error;
  }
  if (!(refusal instanceof HandoverError)) throw new Error("it was taken", { cause: refusal });
  expect(refusal.code).toBe("NOT_THE_VMM");
  expect(refusal.message).toEndWith(`0 of the ${BYTES} bytes are in its own address space`);
});

userfaultTest("a userfaultfd that blocks, and so cannot be polled, blocks no more", async () => {
  await using directory = new TemporaryDirectory("meeting");
  using meeting = new Meeting(directory);
  using memory = mapAnonymous(BYTES);
  meeting.handOver(memory.address, true);
  const { handover, processFd, connection } = meeting.receive();
  for (const fd of [handover.userfaultFd, processFd, connection]) meeting.descriptors.add(fd);
  const text = readFileSync(`/proc/self/fdinfo/${handover.userfaultFd}`, "latin1");
  const flags = parseInt(/^flags:\s+([0-7]+)/m.exec(text)?.[1] ?? "", 8);
  expect(flags & FCNTL.O_NONBLOCK).toBe(FCNTL.O_NONBLOCK);
});

/** Of a process in a pid namespace of its own: takes a caller, says who that is, and when it ends. */
const LISTENER = `
  const { POLL, PollSet } = await import("./syscalls/descriptor.ts");
  const { acceptConnection } = await import("./syscalls/socket.ts");
  const { openListener } = await import("./src/channel/listen.ts");
  const { openCaller } = await import("./src/guests/uffd/vmm-process.ts");
  const { fd } = openListener([{ family: "unix", path: process.argv.at(-1) }]);
  console.log("listening");
  const poll = new PollSet();
  poll.add(fd, POLL.POLLIN);
  poll.wait(10_000);
  const caller = openCaller(acceptConnection(fd));
  console.log(JSON.stringify(caller));
  poll.set(0, caller.fd, POLL.POLLIN);
  console.log(poll.wait(10_000) === 1 ? "ended" : "lives");
`;

namespaceTest("a VMM in no pid namespace of ours has no number, but its end is seen", async () => {
  using descriptors = new Descriptors();
  await using directory = new TemporaryDirectory("meeting");
  const path = directory.file("vmm");
  const bun = [process.execPath, "--cwd", PROJECT_ROOT, "-e", LISTENER, path];
  await using listener = spawn(["unshare", "--pid", "--fork", "--kill-child", ...bun]);
  await listener.stdout.waitForLine(/listening/);
  const code = `await Bun.connect({unix: ${JSON.stringify(path)}, socket: {data() {}}})`;
  await using vmm = spawn([process.execPath, "-e", code]);
  await listener.stdout.waitForLine(/isSure/);
  const isOld = openPeerProcess(descriptors.pair()[0]) === -ERRNO.ENOPROTOOPT;
  const [, said = ""] = listener.stdout.text.split("\n");
  expect(JSON.parse(said)).toMatchObject(isOld ? { pid: 0, fd: -1 } : { pid: 0, isSure: true });
  vmm.kill();
  if (!isOld) await listener.stdout.waitForLine(/ended/);
});
