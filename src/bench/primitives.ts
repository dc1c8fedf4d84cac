/**
 * What everything is made of: the kernel's calls, and the hand-over between two threads, as this
 * program makes them. No migration can be faster than these allow.
 */
import { UFFD } from "../../syscalls/abi/userfaultfd.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { BASE_PAGE_BYTES, mapAnonymous, viewMemory } from "../../syscalls/memory.ts";
import { threadId } from "../../syscalls/process.ts";
import { openUserfault } from "../../syscalls/userfaultfd.ts";
import type { Userfault } from "../../syscalls/userfaultfd.ts";
import { describeError, errorRecord } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { thisMachine } from "./machine.ts";
import type { Benchmark, Contender } from "./contest.ts";
import { measureHandOver } from "./hand-over.ts";

const FIGURE = "time";

/** How much is done in one run. */
interface Amounts {
  calls: number;
  /** Pages placed: 16 MiB of them do not fit into the nearest cache. */
  pages: number;
  handOvers: number;
}
const USUAL: Amounts = { calls: 100_000, pages: 4096, handOvers: 5000 };
const QUICK: Amounts = { calls: 1000, pages: 256, handOvers: 50 };

/** Whose checksums are used. */
const BUN = `Bun ${Bun.version}`;

/** Pages of one call: one, a run as it comes of a channel's buffer, and longer ones. */
const RUNS = [1, 8, 32, 64] as const;
const RUN_MAX = 64;
/** Most that crypto.getRandomValues() gives at once. */
const RANDOM_BYTES_MAX = 65_536;

/** Times of the kernel's calls and of hand-overs between threads. */
export function primitives({ quick }: { quick: boolean }): Promise<Benchmark> {
  const amounts = quick ? QUICK : USUAL;
  return Promise.resolve({
    id: "primitives",
    title: "Calls of the kernel, hand-overs between threads, and checksums",
    setting:
      "Each as this program makes it, in the mean of many: a system call that does nothing, a page " +
      "of random content placed into registered memory, alone and in runs, a page of zeros placed, " +
      "a thread that is handed something, spinning, parked on a word, or parked in poll(2), and the sum " +
      "of a page that no cache holds.",
    axis: null,
    figures: [{ id: FIGURE, title: "time", unit: "ns", better: "less" }],
    contenders: [
      contender("system call", () => timeCalls(amounts.calls)),
      ...(mayPlace() ? placing(amounts.pages) : []),
      contender("hand-over, spinning", () => measureHandOver("spin", amounts.handOvers)),
      contender("hand-over, parked", () => measureHandOver("park", amounts.handOvers)),
      contender("hand-over, in poll", () => measureHandOver("poll", amounts.handOvers)),
      contender("CRC-32 of a page", () => timeSums(amounts.pages, Bun.hash.crc32), BUN),
      contender("XXH3 of a page", () => timeSums(amounts.pages, Bun.hash.xxHash3), BUN),
    ],
    targets: [],
    notes: [
      "Placing is given per page.",
      "A hand-over is half of the way to and fro between two threads that do nothing else.",
    ],
  });
}

function contender(
  name: string,
  time: () => number | Promise<number>,
  program = `Linux ${thisMachine().kernel}`,
): Contender {
  return { name, program, run: async () => ({ values: { [FIGURE]: await time() } }) };
}

function placing(pages: number): Contender[] {
  const copies = RUNS.map((run) => {
    const name = run === 1 ? "UFFDIO_COPY of a page" : `UFFDIO_COPY of ${run} pages`;
    return contender(name, () => timePlacing(pages, run, "copy"));
  });
  const zeros = ([1, RUN_MAX] as const).map((run) => {
    const name = run === 1 ? "UFFDIO_ZEROPAGE of a page" : `UFFDIO_ZEROPAGE of ${run} pages`;
    return contender(name, () => timePlacing(pages, run, "zero"));
  });
  return [...copies, ...zeros];
}

/** Whether this host lets us have a userfaultfd; says so where it does not. */
function mayPlace(): boolean {
  try {
    openUserfault().userfault.close();
    return true;
  } catch (thrown) {
    if (!(thrown instanceof SyscallError)) throw thrown;
    log.warn(`Placing pages is not measured: ${describeError(errorRecord(thrown))}`);
    return false;
  }
}

function timeCalls(calls: number): number {
  const startedNs = Bun.nanoseconds();
  for (let call = 0; call < calls; call++) threadId();
  return (Bun.nanoseconds() - startedNs) / calls;
}

/** Nanoseconds a page, of `pages` pages of random content that are summed one by one. */
function timeSums(pages: number, sum: (page: Uint8Array) => number | bigint): number {
  using memory = mapAnonymous(pages * BASE_PAGE_BYTES);
  fill(memory.address, memory.length);
  const bytes = new Uint8Array(viewMemory(memory.address, memory.length));
  const startedNs = Bun.nanoseconds();
  for (let at = 0; at < bytes.length; at += BASE_PAGE_BYTES) {
    sum(bytes.subarray(at, at + BASE_PAGE_BYTES));
  }
  return (Bun.nanoseconds() - startedNs) / pages;
}

/** Nanoseconds a page, of `pages` placed `run` at a time into memory where none is yet. */
function timePlacing(pages: number, run: number, way: "copy" | "zero"): number {
  using target = mapAnonymous(pages * BASE_PAGE_BYTES);
  using source = mapAnonymous(RUN_MAX * BASE_PAGE_BYTES);
  const { userfault } = openUserfault();
  try {
    userfault.enable(0);
    userfault.register(target.address, target.length, UFFD.UFFDIO_REGISTER_MODE_MISSING);
    fill(source.address, source.length);
    const startedNs = Bun.nanoseconds();
    for (let page = 0; page < pages; page += run) {
      const to = target.address + page * BASE_PAGE_BYTES;
      place(userfault, way, to, source.address, run * BASE_PAGE_BYTES);
    }
    return (Bun.nanoseconds() - startedNs) / pages;
  } finally {
    userfault.close();
  }
}

function place(
  userfault: Userfault,
  way: "copy" | "zero",
  to: number,
  from: number,
  bytes: number,
): void {
  const placed = way === "copy" ? userfault.copy(to, from, bytes) : userfault.zero(to, bytes);
  if (placed !== bytes) throw new Error(`${placed} of ${bytes} bytes were placed`);
}

function fill(address: number, length: number): void {
  const bytes = new Uint8Array(viewMemory(address, length));
  // No more is given at once.
  for (let at = 0; at < length; at += RANDOM_BYTES_MAX) {
    crypto.getRandomValues(bytes.subarray(at, at + RANDOM_BYTES_MAX));
  }
}
