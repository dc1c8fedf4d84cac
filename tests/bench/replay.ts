/**
 * What the recorded working set is worth: a Linux that was kept at its work is restored over a link of
 * 1 Gbit/s without replaying anything, with nothing recorded yet, and with what one restore recorded.
 */
import { rmSync } from "node:fs";
import type { Benchmark, Contender, Run } from "../../src/bench/contest.ts";
import type { Figure, Target } from "../../src/bench/result.ts";
import { workingSetPath } from "../../src/guests/snapshot/layout.ts";
import type { SourceReport } from "../../src/report/report.ts";
import { bootLinux, LinuxPlace, needLinuxGuest } from "../helpers/linux-guest.ts";
import type { LinuxGuest } from "../helpers/linux-guest.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import type { SourceRole } from "../helpers/migration.ts";
import { needUserfaultfd } from "../helpers/need.ts";
import { machineOf, needQemuVersion, qemuPath } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { QmpClient } from "../helpers/qmp.ts";
import { needTwoHosts, TwoHosts } from "../helpers/two-hosts.ts";
import { isHere } from "./needs.ts";

const VERSIONS = ["7.2", "11.1"] as const satisfies readonly QemuVersion[];
/** All of them have it. */
const MACHINE = machineOf("7.2");
const MEMORY_MIB = 512;
/** Of a file in the guest's tmpfs that it does not look at, and of one that it reads on and on. */
const COLD_MIB = 256;
const HOT_MIB = 16;
const LINK_BYTES_PER_SECOND = 125_000_000;
/** What waits before the link at most. */
const QUEUE_MS = 20;
/** Lines that the guest prints where its work is followed. */
const LINES = 400;
/** What filling the guest may take on a busy machine. */
const LONG_MS = 120_000;

const FIGURES: Figure[] = [
  { id: "faults", title: "Remote faults", unit: "count", better: "less" },
  { id: "share", title: "Owed pages asked for", unit: "%", better: "less" },
  { id: "running", title: "Until the guest ran", unit: "ms", better: "less" },
  { id: "useful", title: "Until the working set was there", unit: "ms", better: "less" },
  { id: "work", title: `Until it had printed ${LINES} lines`, unit: "ms", better: "less" },
  { id: "whole", title: "Until no page was missing", unit: "ms", better: "less" },
];

const named = (what: string, version: QemuVersion): string => `${what}, QEMU ${version}`;
const REPLAYED = "second restore";
const BARE = "without replay";
const FIRST = "first restore";

const TARGETS: Target[] = VERSIONS.flatMap((version) => [
  {
    ...{ figure: "faults", of: named(REPLAYED, version), to: named(BARE, version) },
    ...{ bound: "at most", ratio: 0.1 },
  },
  {
    ...{ figure: "useful", of: named(REPLAYED, version), to: named(BARE, version) },
    ...{ bound: "at most", ratio: 1 / 3 },
  },
]);

/** The benchmark; undefined, and said why, where it cannot be run. */
export async function replay(_options: { quick: boolean }): Promise<Benchmark | undefined> {
  const needs = [needTwoHosts(), needLinuxGuest(), needUserfaultfd()];
  if (!isHere("replay", ...needs, ...VERSIONS.map(needQemuVersion))) return undefined;
  const kept = await KeptLinux.keep();
  return {
    id: "replay",
    title: "The recorded working set",
    setting:
      `A Linux of ${MEMORY_MIB} MiB under TCG, which reads ${HOT_MIB} MiB again and again and has ` +
      `${COLD_MIB} MiB more in use, is restored over a link held to 1 Gbit/s (tbf, two network ` +
      "namespaces) into a QEMU with postcopy-preempt.",
    axis: null,
    figures: FIGURES,
    targets: TARGETS,
    notes: [
      "Times count from the connection. The second restore replays what one first restore recorded.",
      "A first restore holds the push back for up to a second, to see what is asked for.",
    ],
    contenders: VERSIONS.flatMap((version) => kept.contenders(version)),
  };
}

/** A Linux that was kept at its work. */
class KeptLinux {
  readonly #place = new LinuxPlace();
  #restores = 0;

  static async keep(): Promise<KeptLinux> {
    const kept = new KeptLinux();
    // Nobody says when the last run is over.
    process.once("exit", () => rmSync(kept.#place.file(""), { recursive: true, force: true }));
    await kept.#keep();
    // Whoever comes first has something to replay.
    await kept.#restore(VERSIONS[0], []);
    return kept;
  }

  get #snapshot(): string {
    return this.#place.file("snapshot");
  }

  contenders(version: QemuVersion): Contender[] {
    const program = `into QEMU ${version}`;
    const known = async (...flags: string[]) => await this.#restore(version, flags);
    return [
      {
        ...{ name: named(BARE, version), program },
        run: async () => await known("--no-replay", "--no-record"),
      },
      {
        ...{ name: named(FIRST, version), program },
        run: async () => {
          rmSync(workingSetPath(this.#snapshot));
          return await known();
        },
      },
      {
        ...{ name: named(REPLAYED, version), program },
        run: async () => await known("--no-record"),
      },
    ];
  }

  async #keep(): Promise<void> {
    const program = [qemuPath(VERSIONS[0])];
    const machine = { name: "kept", program, machine: MACHINE, memoryMib: MEMORY_MIB };
    await using guest = await bootLinux(this.#place, machine);
    await guest.ask(`dd if=/dev/urandom of=/data/cold bs=1M count=${COLD_MIB}`, LONG_MS);
    await guest.ask(`dd if=/dev/urandom of=/data/hot bs=1M count=${HOT_MIB}`, LONG_MS);
    await guest.ask("while :; do md5sum /data/hot >/dev/null; done &");
    await guest.waitForNumbers(LINES);
    await using dest = await startDest({ guest: `snapshot:${this.#snapshot}` });
    const flags = ["--switchover", "now"];
    await using source = startSource({ guest: `qemu:${guest.monitor}`, to: dest.peer, flags });
    for (const { exitCode, stderr } of [await source.end(), await dest.end()]) {
      if (exitCode !== 0) throw new Error(`the Linux was not kept:\n${stderr}`);
    }
  }

  async #restore(version: QemuVersion, flags: readonly string[]): Promise<Run> {
    await using hosts = await TwoHosts.start();
    await hosts.limit(LINK_BYTES_PER_SECOND, QUEUE_MS);
    const { one, other } = hosts;
    const name = `restored-${this.#restores++}`;
    const program = [...one.enter, qemuPath(version)];
    const machine = { name, program, machine: MACHINE, memoryMib: MEMORY_MIB };
    await using guest = await this.#place.startIncoming(machine);
    const to = `tcp:${one.address}:${await listen(guest, one.address)}`;
    await using source = startSource({
      ...{ before: other.enter, guest: `snapshot:${this.#snapshot}`, to },
      flags: ["--insecure", "--preempt", "--no-journal", ...flags],
    });
    const [work, { exitCode, stderr, report }] = await Promise.all([
      untilWorked(source, guest),
      source.end(),
    ]);
    if (exitCode !== 0) throw new Error(`the Linux was not restored:\n${stderr}`);
    return { values: { ...figures(report), work } };
  }
}

/** Has a QEMU that waits listen there, with the preempt channel; gives the port. */
async function listen({ monitor }: LinuxGuest, address: string): Promise<string> {
  await using qmp = await QmpClient.connect(monitor);
  const capabilities = ["events", "postcopy-ram", "postcopy-preempt"].map((capability) => {
    return { capability, state: true };
  });
  await qmp.execute("migrate-set-capabilities", { capabilities });
  await qmp.execute("migrate-incoming", { uri: `tcp:${address}:0` });
  const reply = await qmp.execute<{ "socket-address"?: { port: string }[] }>("query-migrate");
  const port = reply["socket-address"]?.[0]?.port;
  if (port === undefined) throw new Error(`QEMU names no port: ${JSON.stringify(reply)}`);
  return port;
}

/** Milliseconds from the package until the guest has done some of its work. */
async function untilWorked(source: SourceRole, guest: LinuxGuest): Promise<number> {
  await source.phase("postcopy");
  const startedMs = performance.now();
  await guest.waitForNumbers(LINES);
  return performance.now() - startedMs;
}

function figures({ times, requests, workingSet }: SourceReport): Record<string, number> {
  const since = (ms: number | null | undefined): number => (ms ?? Number.NaN) - (times.setup ?? 0);
  const all = {
    faults: requests.received,
    share: (requests.remoteShare ?? Number.NaN) * 100,
    running: since(times.toRunning),
    useful: since(workingSet?.toInPlaceMs),
    whole: since(times.toDrained),
  };
  // Nothing is recorded of which a first restore could say when it was there.
  return Object.fromEntries(Object.entries(all).filter(([, value]) => !Number.isNaN(value)));
}
