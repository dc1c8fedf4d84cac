/**
 * Remote faults over a slower link: one of 1 Gbit/s between two hosts (network namespaces), with
 * QEMU beside us, and one with a delay, where a fault can take no less than a round trip.
 */
import type { Benchmark, Contender, Run } from "../../src/bench/contest.ts";
import { FAULT_FIGURES, faultsRun, limitFlags } from "../../src/bench/faults.ts";
import type { LatencySummary } from "../../src/report/histogram.ts";
import { DelayedLink } from "../helpers/delayed-link.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import type { DestRole } from "../helpers/migration.ts";
import { needUserfaultfd } from "../helpers/need.ts";
import { needTwoHosts, TwoHosts } from "../helpers/two-hosts.ts";
import { FAULT_NOTES, FAULT_TARGETS, hasQemu, withQemu } from "./faults.ts";
import type { Ends } from "./faults.ts";
import { OUR_PROGRAM, OURS } from "./names.ts";
import { isHere } from "./needs.ts";

const GIGABIT_BYTES_PER_SECOND = 125e6;
const QUEUE_MS = 5;
const MEMORY_MIB = 256;
const QUICK_MEMORY_MIB = 64;
const DELAY_MS = 5;
/** Limits of the push in MB/s, 0 none, of the link with a delay. */
const DELAYED_LIMITS = [0, 50, 200] as const;

function stressGuest(memoryMib: number): string {
  return `stress:size=${memoryMib}MiB,workers=1,zero=0,rate=unlimited,hot-share=0,discard=0,duration=10ms`;
}

/** Moves a stress guest to a destination that listens, over whatever lies between. */
async function moveOver(
  dest: DestRole,
  options: {
    to: string;
    memoryMib: number;
    limit: number;
    before?: readonly string[];
    moreFlags?: readonly string[];
  },
): Promise<{ latencyNs: LatencySummary; run: Run }> {
  const { to, memoryMib, limit, before = [], moreFlags = [] } = options;
  const flags = ["--switchover", "now", ...moreFlags, ...limitFlags(limit)];
  await using source = startSource({ to, guest: stressGuest(memoryMib), flags, before });
  const [sent, arrived] = await Promise.all([source.end(), dest.end()]);
  const { latencyNs } = arrived.report.faults;
  const { postcopy } = sent.report.rates;
  if (latencyNs === null || postcopy === null) throw new Error(`${sent.stderr}${arrived.stderr}`);
  return { latencyNs, run: faultsRun(latencyNs.buckets, latencyNs.mean, postcopy) };
}

/** Over a link of 1 Gbit/s; undefined where there is no QEMU 11.1, or no right to make a link. */
export async function faultsGigabit({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  if (!hasQemu("faults-gigabit", needTwoHosts())) return undefined;
  const memoryMib = quick ? QUICK_MEMORY_MIB : MEMORY_MIB;
  // It goes with this process, whose children hold it.
  const hosts = await TwoHosts.start();
  await hosts.limit(GIGABIT_BYTES_PER_SECOND, QUEUE_MS);
  const { one, other } = hosts;
  // Nobody else is on that link.
  const flags = ["--insecure"];
  const ends: Ends = {
    ...{ source: other.enter, destination: one.enter, address: one.address, flags },
  };
  const ours: Contender = {
    name: OURS,
    program: OUR_PROGRAM,
    at: 0,
    run: async () => {
      const listen = `tcp:${one.address}:0`;
      await using dest = await startDest({ listen, before: one.enter, flags });
      const options = { to: dest.peer, memoryMib, limit: 0, before: other.enter, moreFlags: flags };
      return (await moveOver(dest, options)).run;
    },
  };
  return {
    id: "faults-gigabit",
    title: "Remote faults over a link of 1 Gbit/s",
    setting:
      `As the remote faults, with ${memoryMib} MiB, between two network namespaces whose link is ` +
      `held to 1 Gbit/s (tbf, a queue of ${QUEUE_MS} ms).`,
    axis: null,
    figures: FAULT_FIGURES,
    contenders: [...(await withQemu(memoryMib, [0], ends)), ours].map(withoutAxis),
    targets: FAULT_TARGETS,
    notes: FAULT_NOTES,
  };
}

function withoutAxis({ name, program, run }: Contender): Contender {
  return { name, program, run };
}

/** Over a link with a delay of our own making. */
export function faultsDelayed({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  if (!isHere("faults-delayed", needUserfaultfd())) return Promise.resolve(undefined);
  const memoryMib = quick ? QUICK_MEMORY_MIB : MEMORY_MIB;
  const contenders = DELAYED_LIMITS.map((limit): Contender => ({
    name: OURS,
    program: OUR_PROGRAM,
    at: limit,
    run: async () => {
      await using dest = await startDest();
      await using link = await DelayedLink.start(dest.peer, DELAY_MS);
      const { run, latencyNs } = await moveOver(dest, { to: link.uri, memoryMib, limit });
      // There is nobody to compare with whose figures are less exact.
      const exact = { p50: latencyNs.p50 / 1000, p99: latencyNs.p99 / 1000 };
      const underWay = await link.mostUnderWay();
      return { ...run, values: { ...run.values, ...exact, underWay } };
    },
  }));
  return Promise.resolve({
    id: "faults-delayed",
    title: "Remote faults over a link with a round trip of 10 ms",
    setting:
      `A stress guest of ${memoryMib} MiB that writes to pages at random, through a relay that ` +
      `holds each byte for ${DELAY_MS} ms in each direction.`,
    axis: { title: "Limit of the push", unit: "MB/s (0: none)" },
    figures: [
      ...FAULT_FIGURES,
      { id: "underWay", title: "Most bytes under way", unit: "bytes", better: "more" },
    ],
    contenders,
    targets: [],
    notes: [
      `A fault can take no less than ${2 * DELAY_MS} ms, but where its page was under way already.`,
      "Percentiles are those of our own histogram, within 0.4 %.",
      "The relay shares the processors with both ends.",
    ],
  });
}
