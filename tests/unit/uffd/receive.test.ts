/** A handover as it comes over the socket: in pieces, late, or not at all. */
import { expect } from "bun:test";
import { readdirSync } from "node:fs";
import { raiseEventDescriptor } from "../../../syscalls/descriptor.ts";
import { sendWithDescriptors } from "../../../syscalls/ancillary.ts";
import { mapScratch } from "../../../syscalls/memory.ts";
import { openUserfault } from "../../../syscalls/userfaultfd.ts";
import { StoppedError } from "../../../src/channel/channel.ts";
import { FIRECRACKER } from "../../../src/guests/uffd/firecracker.ts";
import { HandoverError } from "../../../src/guests/uffd/handover.ts";
import { receiveHandover } from "../../../src/guests/uffd/receive.ts";
import type { TakenHandover } from "../../../src/guests/uffd/receive.ts";
import { Descriptors, isOpen } from "../../helpers/descriptors.ts";
import { needUserfaultfd, requireOrSkip } from "../../helpers/need.ts";

const userfaultTest = requireOrSkip(needUserfaultfd());

const scratch = mapScratch(256 * 1024);
const REGION = { base_host_virt_addr: 0x1000, size: 4096, offset: 0 };
const MESSAGE = JSON.stringify([REGION]);

/** A VMM: what it says is under way before it is listened to. */
class Vmm implements Disposable {
  readonly descriptors = new Descriptors();
  readonly userfaultFd: number;
  readonly stopFd: number;
  readonly #fd: number;
  readonly #otherFd: number;

  constructor() {
    [this.#fd, this.#otherFd] = this.descriptors.pair();
    this.userfaultFd = this.descriptors.add(openUserfault().userfault.fd);
    this.stopFd = this.descriptors.event();
  }

  say(text: string | Uint8Array, ...descriptors: number[]): this {
    const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
    scratch.bytes.set(bytes);
    const sent = sendWithDescriptors(this.#fd, scratch.address, bytes.length, descriptors);
    expect(sent).toBe(bytes.length);
    return this;
  }

  end(): this {
    this.descriptors.close(this.#fd);
    return this;
  }

  receive(timeoutMs = 10_000): TakenHandover {
    const { stopFd } = this;
    const fd = this.#otherFd;
    const taken = receiveHandover({ fd, stopFd, format: FIRECRACKER, timeoutMs });
    this.descriptors.add(taken.userfaultFd);
    return taken;
  }

  /** The code of the error that ends it. */
  refusal(timeoutMs?: number): string {
    try {
      this.receive(timeoutMs);
    } catch (error) {
      if (error instanceof HandoverError) return error.code;
      throw error;
    }
    throw new Error("it was taken");
  }

  [Symbol.dispose](): void {
    this.descriptors[Symbol.dispose]();
  }
}

userfaultTest("one message with its userfaultfd, and the connection stays", () => {
  using vmm = new Vmm();
  const taken = vmm.say(MESSAGE, vmm.userfaultFd).receive();
  expect(taken.regions).toEqual([{ address: 0x1000, length: 4096, offset: 0, pageSize: 4096 }]);
  expect(taken.userfaultFd).not.toBe(vmm.userfaultFd);
  expect(isOpen(taken.userfaultFd)).toBe(true);
});

userfaultTest("in pieces, with the descriptor in any of them, or behind all", () => {
  const [a, b, c] = [MESSAGE.slice(0, 9), MESSAGE.slice(9, 30), MESSAGE.slice(30)];
  for (const place of [0, 1, 2, 3]) {
    using vmm = new Vmm();
    for (const [index, piece] of [a, b, c, " "].entries()) {
      vmm.say(piece, ...(index === place ? [vmm.userfaultFd] : []));
    }
    expect(vmm.end().receive().regions).toHaveLength(1);
  }
});

userfaultTest("a message of more than 64 KiB", () => {
  using vmm = new Vmm();
  const many = Array.from({ length: 2000 }, (_, index) => {
    const at = index * 4096;
    return { base_host_virt_addr: at, size: 4096, offset: at, page_size: 4096 };
  });
  const text = JSON.stringify(many);
  expect(text.length).toBeGreaterThan(64 * 1024);
  expect(vmm.say(text, vmm.userfaultFd).receive().regions).toHaveLength(2000);
});

userfaultTest("further descriptors are closed", () => {
  using vmm = new Vmm();
  const others = [vmm.descriptors.event(), vmm.descriptors.event()];
  const before = openCount();
  vmm.say(MESSAGE, vmm.userfaultFd, ...others).receive();
  // The userfaultfd itself.
  expect(openCount()).toBe(before + 1);
});

userfaultTest("what is no userfaultfd is named, and closed", () => {
  using vmm = new Vmm();
  const before = openCount();
  const event = vmm.descriptors.event();
  expect(() => vmm.say(MESSAGE, event).receive()).toThrow(/no userfaultfd: anon_inode:\[eventfd\]/);
  expect(openCount()).toBe(before + 1);
});

/** Descriptors that this process has open, and the one with which they are counted. */
function openCount(): number {
  return readdirSync("/proc/self/fd").length;
}

userfaultTest(
  "whoever ends without a word is nobody, and who stays and says nothing lacks all",
  () => {
    using gone = new Vmm();
    expect(gone.end().refusal()).toBe("NOBODY");
    using silent = new Vmm();
    expect(silent.refusal(20)).toBe("NO_MESSAGE");
  },
);

userfaultTest("what lacks is named", () => {
  const cases: [string, (vmm: Vmm) => Vmm][] = [
    ["NO_MESSAGE", (vmm) => vmm.say(" ", vmm.userfaultFd)],
    ["NO_DESCRIPTOR", (vmm) => vmm.say(MESSAGE)],
    ["CUT_HANDOVER", (vmm) => vmm.say(MESSAGE.slice(0, -1), vmm.userfaultFd)],
    ["BAD_HANDOVER", (vmm) => vmm.say("GET /", vmm.userfaultFd)],
    ["BAD_HANDOVER", (vmm) => vmm.say(Uint8Array.of(0x5b, 0xff, 0xfe), vmm.userfaultFd)],
    ["NO_REGIONS", (vmm) => vmm.say("[]", vmm.userfaultFd)],
  ];
  for (const [code, say] of cases) {
    using closed = new Vmm();
    expect(say(closed).end().refusal()).toBe(code);
    using silent = new Vmm();
    expect(say(silent).refusal(20)).toBe(code);
  }
});

userfaultTest("nobody waits longer than wanted", () => {
  using vmm = new Vmm();
  raiseEventDescriptor(vmm.stopFd);
  expect(() => vmm.receive()).toThrow(StoppedError);
});
