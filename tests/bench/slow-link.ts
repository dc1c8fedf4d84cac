/**
 * A guest whose memory can be compressed, over links that are slower than compression: until all of it
 * is at the other end, with what each program has for that.
 */
import { rmSync } from "node:fs";
import type { Benchmark, Contender, Run } from "../../src/bench/contest.ts";
import type { Figure, Target } from "../../src/bench/result.ts";
import { buildBootSector } from "../helpers/boot-sector.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import { needUserfaultfd } from "../helpers/need.ts";
import { captureQemu, enablePostcopy } from "../helpers/qemu-snapshot.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { startQemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { needTwoHosts, TwoHosts } from "../helpers/two-hosts.ts";
import type { Host } from "../helpers/two-hosts.ts";
import { OUR_PROGRAM, OURS, qemuProgramName, qemuToQemu } from "./names.ts";
import { isHere } from "./needs.ts";
import { sendByPostcopy } from "./qemu-move.ts";

const QEMU = "11.1";
const MIB = 1024 * 1024;
const SPARE_MIB = 16;
const QUEUE_MS = 20;
const RUN_LIMIT_MS = 120_000;
const CHANNELS = 2;
/** What each link carries plain in about four seconds. */
const MEMORY_MIB: Readonly<Record<number, number>> = { 100: 48, 1000: 448 };
const QUICK_MEMORY_MIB = 8;

const TIME: Figure = { id: "time", title: "until all is there", unit: "ms", better: "less" };
const WIRE: Figure = { id: "wire", title: "on the wire", unit: "bytes", better: "less" };

const named = (compress: string): string => `${OURS}, --compress ${compress}`;
const POSTCOPY = `${qemuToQemu(QEMU)}, post-copy`;
const MULTIFD = `${qemuToQemu(QEMU)}, precopy, multifd zstd`;

/** The benchmark; undefined, and said why, where it cannot be run. */
export async function slowLink({ quick }: { quick: boolean }): Promise<Benchmark | undefined> {
  const needs = [needTwoHosts(), needUserfaultfd(), needQemuVersion(QEMU)];
  if (!isHere("slow-link", ...needs)) return undefined;
  const contenders: Contender[] = [];
  for (const mbits of [100, 1000]) {
    const memoryMib = quick ? QUICK_MEMORY_MIB : (MEMORY_MIB[mbits] ?? QUICK_MEMORY_MIB);
    contenders.push(...contendersAt(mbits, memoryMib, await keepGuest(memoryMib)));
  }
  return {
    id: "slow-link",
    title: "Compressible memory over a slow link",
    setting:
      "A guest that stands still, of whose memory one byte in four is random and the others are zeros, " +
      `moves between two network namespaces whose link is held to that rate (tbf, a queue of ` +
      `${QUEUE_MS} ms): ${MEMORY_MIB[100]} MiB over 100 Mbit/s, ${MEMORY_MIB[1000]} MiB over 1 Gbit/s.`,
    axis: { title: "link", unit: "Mbit/s" },
    figures: [TIME, WIRE],
    contenders,
    targets: [POSTCOPY, MULTIFD].map((to): Target => ({
      ...{ figure: TIME.id, of: named("auto"), to, bound: "at most", ratio: 1 },
    })),
    notes: [
      "Ours sends the kept guest of a QEMU by post-copy to a dest that keeps it. QEMU's guest is stopped.",
      "QEMU compresses nothing in post-copy: multifd with zstd is its precopy. It is told beside it, as " +
        "the best that QEMU has for a guest that does not write.",
      `With multifd QEMU uses ${CHANNELS} channels and level 1 of zstd, which is ours as well.`,
    ],
  };
}

function contendersAt(mbits: number, memoryMib: number, snapshot: string): Contender[] {
  const over = async (move: (hosts: TwoHosts) => Promise<Run>): Promise<Run> => {
    await using hosts = await TwoHosts.start();
    await hosts.limit((mbits * 1e6) / 8, QUEUE_MS);
    return await move(hosts);
  };
  const ours = ["auto", "off"].map((compress): Contender => ({
    ...{ name: named(compress), program: OUR_PROGRAM, at: mbits },
    run: async () => await over((hosts) => moveByOurs(hosts, snapshot, compress)),
  }));
  const qemus = ([POSTCOPY, MULTIFD] as const).map((name): Contender => ({
    ...{ name, program: qemuProgramName(QEMU), at: mbits },
    run: async () => await over((hosts) => moveByQemu(hosts, memoryMib, name === MULTIFD)),
  }));
  return [...ours, ...qemus];
}

/** Between two of ours, from a snapshot into one. */
async function moveByOurs({ one, other }: TwoHosts, guest: string, compress: string): Promise<Run> {
  await using directory = new TemporaryDirectory("slow");
  const listen = `tcp:${one.address}:0`;
  const flags = ["--insecure"];
  const kept = `snapshot:${directory.file("guest")}`;
  await using dest = await startDest({ guest: kept, listen, before: one.enter, flags });
  const how = ["--compress", compress, "--no-record", "--no-replay"];
  await using source = startSource({
    ...{ guest: `snapshot:${guest}`, to: dest.peer, before: other.enter },
    flags: [...flags, ...how],
  });
  const [sent, arrived] = await Promise.all([source.end(), dest.end()]);
  const { times, bytes } = sent.report;
  if (times.toDrained === null) throw new Error(`${sent.stderr}${arrived.stderr}`);
  const time = times.toDrained - (times.setup ?? 0);
  return { values: { [TIME.id]: time, [WIRE.id]: bytes.postcopy + bytes.requested } };
}

/** A QEMU with itself: by post-copy alone, or by precopy with several channels that compress. */
async function moveByQemu(
  { one, other }: TwoHosts,
  memoryMib: number,
  multifd: boolean,
): Promise<Run> {
  await using source = await startGuest(memoryMib, other);
  await source.waitForRounds(1);
  await source.qmp.execute("stop");
  await using destination = await startGuest(memoryMib, one, "defer");
  for (const qemu of [source, destination]) {
    if (multifd) await enableMultifd(qemu);
    else await enablePostcopy(qemu, { "postcopy-preempt": true });
  }
  const uri = `tcp:${one.address}:${await destination.listen(one.address)}`;
  if (multifd) {
    await source.qmp.execute("migrate-set-parameters", { "max-bandwidth": 0 });
    await source.qmp.execute("migrate", { uri });
  } else {
    await sendByPostcopy(source, uri);
  }
  await source.waitForMigration("completed", { limitMs: RUN_LIMIT_MS });
  const info = await source.qmp.execute<{
    "total-time": number;
    ram: { transferred: number };
  }>("query-migrate");
  return { values: { [TIME.id]: info["total-time"], [WIRE.id]: info.ram.transferred } };
}

async function enableMultifd(qemu: Qemu): Promise<void> {
  await qemu.setCapabilities({ events: true, multifd: true });
  await qemu.qmp.execute("migrate-set-parameters", {
    "multifd-channels": CHANNELS,
    "multifd-compression": "zstd",
    "multifd-zstd-level": 1,
  });
}

/** The guest in a QEMU on one of the hosts; with `incoming` one that waits for it, and stays stopped. */
async function startGuest(memoryMib: number, host?: Host, incoming?: string): Promise<Qemu> {
  const range = { startAddress: MIB, endAddress: (memoryMib + 1) * MIB };
  const { command, ...program } = qemuProgram(QEMU);
  const waiting = incoming === undefined ? {} : { incoming, extraArguments: ["-S"] };
  return await startQemu({
    program: { ...program, command: [...(host?.enter ?? []), ...command] },
    memoryMib: memoryMib + SPARE_MIB,
    bootSector: buildBootSector(range, { filled: true, compressible: true }),
    ...waiting,
  });
}

/** The same guest, kept in a directory that goes with this process. */
async function keepGuest(memoryMib: number): Promise<string> {
  const directory = new TemporaryDirectory("slow");
  process.once("exit", () => rmSync(directory.path, { recursive: true, force: true }));
  await using source = await startGuest(memoryMib);
  await source.waitForRounds(1);
  await enablePostcopy(source);
  const snapshot = directory.file("guest");
  await captureQemu(source, snapshot);
  return snapshot;
}
