/**
 * How long the vCPUs of a VMM wait for pages of a memory that is being filled: examples/vmm.c, all of
 * whose threads touch every page at random from the handover on, with a balloon that gives memory back
 * meanwhile, and without.
 */
import { randomFillSync } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import type { Benchmark, Contender, Run } from "../../src/bench/contest.ts";
import { FAULT_FIGURES } from "../../src/bench/faults.ts";
import { TARGET_PAGE_SIZE } from "../../src/stream/constants.ts";
import { HUGE_PAGE_BYTES, HugePages, needHugePages } from "../helpers/huge-pages.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import { needCompiler, needUserfaultfd } from "../helpers/need.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { startVmm, vmmReport } from "../helpers/vmm.ts";
import { OUR_PROGRAM } from "./names.ts";
import { isHere } from "./needs.ts";

const MIB = 2 ** 20;
const MEMORY_MIB = 128;
const QUICK_MEMORY_MIB = 16;
const THREADS = [1, 4, 16] as const;
/** The balloon takes ranges of some 32 pages: a quarter of small ones together, as far as they differ. */
const BALLOON_SHARE = 0.25;
const BALLOON_PAGES = 32;

/** The memory file, which goes with this process. */
interface Memory {
  directory: TemporaryDirectory;
  file: string;
  bytes: number;
}

/** The benchmark; undefined, and said why, where it cannot be run. */
export function uffd({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  if (!isHere("uffd", needUserfaultfd(), needCompiler())) return Promise.resolve(undefined);
  const memoryMib = quick ? QUICK_MEMORY_MIB : MEMORY_MIB;
  const memory = writeMemory(memoryMib * MIB);
  const pool = memory.bytes / HUGE_PAGE_BYTES;
  const sizes: [name: string, pageBytes: number][] = [["4K pages", TARGET_PAGE_SIZE]];
  if (isHere("uffd with 2M pages", needHugePages(pool))) sizes.push(["2M pages", HUGE_PAGE_BYTES]);
  const contenders = sizes.flatMap(([name, pageBytes]) =>
    [false, true].flatMap((balloon) =>
      THREADS.map((threads): Contender => ({
        name: balloon ? `${name}, balloon` : name,
        program: OUR_PROGRAM,
        at: threads,
        run: () => fill(memory, { threads, pageBytes, balloon }),
      })),
    ),
  );
  return Promise.resolve({
    id: "uffd",
    title: "Filling the memory of a VMM",
    setting:
      `A VMM of ${memoryMib} MiB (examples/vmm.c) is filled from a memory file of Firecracker, ` +
      "none of it zero, over loopback tcp, while its threads touch all of it at random as fast as they " +
      "get it, and everything is pushed at full speed. With a balloon a quarter is given back meanwhile.",
    axis: { title: "Threads that touch pages", unit: "threads" },
    figures: FAULT_FIGURES,
    contenders,
    targets: [],
    notes: [
      "A remote fault lasts from the poll that finds it to when its page is in place.",
      "Nothing is replayed or recorded.",
    ],
  });
}

function writeMemory(bytes: number): Memory {
  const directory = new TemporaryDirectory("uffd");
  process.once("exit", () => rmSync(directory.path, { recursive: true, force: true }));
  const file = directory.file("memory");
  writeFileSync(file, randomFillSync(Buffer.alloc(bytes)), { mode: 0o600 });
  return { directory, file, bytes };
}

interface Filling {
  threads: number;
  pageBytes: number;
  balloon: boolean;
}

async function fill({ directory, file, bytes }: Memory, filling: Filling): Promise<Run> {
  const { threads, pageBytes, balloon } = filling;
  const pages = bytes / pageBytes;
  const ranges = balloon ? Math.max(1, Math.round((pages * BALLOON_SHARE) / BALLOON_PAGES)) : 0;
  await using _pool =
    pageBytes === HUGE_PAGE_BYTES ? await HugePages.add(bytes / HUGE_PAGE_BYTES) : undefined;
  const socket = directory.file("socket");
  await using dest = await startDest({ guest: `uffd:${socket}` });
  const flags = ["--no-record", "--no-replay", "--no-journal"];
  await using source = startSource({ to: dest.peer, guest: `firecracker:${file}`, flags });
  // It is there before the VMM is, whose threads wait for pages and not for a program to start.
  await source.event("connected");
  const words = ["--page-size", pageBytes, "--threads", threads, "--discard", ranges].map(String);
  // All that is missing is placed before it ends, and with it its memory.
  await using vmm = await startVmm(socket, "--expect", file, "--hold", ...words);
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  vmm.writeLine("");
  const { wrongPages } = await vmmReport(vmm);
  const { latencyNs } = got.report.faults;
  const bulk = sent.report.rates.postcopy;
  if (wrongPages > 0 || latencyNs === null || bulk === null) {
    throw new Error(`${wrongPages} wrong pages\n${sent.stderr}${got.stderr}`);
  }
  const { count, mean, p50, p99, buckets } = latencyNs;
  const values = { mean: mean / 1000, p50: p50 / 1000, p99: p99 / 1000, faults: count, bulk };
  return { values, latencyBuckets: buckets };
}
