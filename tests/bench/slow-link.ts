/**
 * A guest whose memory can be compressed, over links that are slower than compression: until all of it
 * is at the other end, with what each program has for that.
 */
import { rmSync } from "node:fs";
import type { Benchmark, Contender, Run } from "../../src/bench/contest.ts";
import type { Figure } from "../../src/bench/result.ts";
import { buildBootSector } from "../helpers/boot-sector.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import { needUserfaultfd } from "../helpers/need.ts";
import { captureQemu, enablePostcopy } from "../helpers/qemu-snapshot.ts";
import { needQemuVersion, qemuProgram } from "../helpers/qemu-versions.ts";
import type { Qemu, QemuOptions } from "../helpers/qemu.ts";
import { startQemu } from "../helpers/qemu.ts";
import { needTwoHosts, TwoHosts } from "../helpers/two-hosts.ts";
import type { Host } from "../helpers/two-hosts.ts";
import { MemoryDirectory } from "./memory-directory.ts";
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
  const directory = new MemoryDirectory();
  process.once("exit", () => rmSync(directory.path, { recursive: true, force: true }));
  const contenders: Contender[] = [];
  for (const mbits of [100, 1000]) {
    const memoryMib = quick ? QUICK_MEMORY_MIB : (MEMORY_MIB[mbits] ?? QUICK_MEMORY_MIB);
    const guest = { memoryMib, contents: directory.file(`contents-${mbits}`) };
    await writeContents(guest);
    const snapshot = directory.file(`kept-${mbits}`);
    await keep(guest, snapshot);
    contenders.push(...contendersAt(mbits, guest, snapshot));
  }
  return {
    id: "slow-link",
    title: "Compressible memory over a slow link",
    setting:
      "A guest that stands still, whose memory is full of a program's file (Bun's executable), " +
      `moves between two network namespaces whose link is held to that rate (tbf, a queue of ` +
      `${QUEUE_MS} ms): ${MEMORY_MIB[100]} MiB over 100 Mbit/s, ${MEMORY_MIB[1000]} MiB over 1 Gbit/s.`,
    axis: { title: "link", unit: "Mbit/s" },
    figures: [TIME, WIRE],
    contenders,
    targets: [{ figure: TIME.id, of: named("auto"), to: POSTCOPY, bound: "at most", ratio: 1 }],
    notes: [
      "Ours sends the kept guest of a QEMU by post-copy to a dest that keeps it. QEMU's guest is stopped.",
      "QEMU compresses nothing in post-copy: multifd with zstd is its precopy. It is told beside it, as " +
        "the best that QEMU has for a guest that does not write.",
      "Ours counts from the connection to the last page, QEMU's is its total-time.",
      `With multifd QEMU uses ${CHANNELS} channels and level 1 of zstd, which is ours as well.`,
    ],
  };
}

function contendersAt(mbits: number, guest: Guest, snapshot: string): Contender[] {
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
    run: async () => await over((hosts) => moveByQemu(hosts, guest, name === MULTIFD)),
  }));
  return [...ours, ...qemus];
}

/** Between two of ours, from a snapshot into one. */
async function moveByOurs({ one, other }: TwoHosts, guest: string, compress: string): Promise<Run> {
  await using directory = new MemoryDirectory();
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
  const { toDrained } = arrived.report.times;
  if (toDrained === null) throw new Error(`${sent.stderr}${arrived.stderr}`);
  const { postcopy, requested } = sent.report.bytes;
  return { values: { [TIME.id]: toDrained, [WIRE.id]: postcopy + requested } };
}

/** A QEMU with itself: by post-copy alone, or by precopy with several channels that compress. */
async function moveByQemu({ one, other }: TwoHosts, guest: Guest, multifd: boolean): Promise<Run> {
  await using source = await startFull(guest, other);
  await using destination = await start(guest, one, { incoming: "defer", extraArguments: ["-S"] });
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

/** A guest, and the file that its memory is full of. */
interface Guest {
  memoryMib: number;
  contents: string;
}

/** A QEMU on one of the hosts, or on this one. */
async function start(
  { memoryMib }: Guest,
  host: Pick<Host, "enter">,
  more: Partial<QemuOptions>,
): Promise<Qemu> {
  const { command, ...program } = qemuProgram(QEMU);
  return await startQemu({
    program: { ...program, command: [...host.enter, ...command] },
    memoryMib: memoryMib + SPARE_MIB,
    bootSector: buildBootSector({ startAddress: MIB, endAddress: (memoryMib + 1) * MIB }),
    ...more,
  });
}

/** The same with the guest, which stands still once it has touched all of its memory. */
async function startFull(guest: Guest, host: Pick<Host, "enter">): Promise<Qemu> {
  const loader = `loader,file=${guest.contents},addr=0x${MIB.toString(16)},force-raw=on`;
  const qemu = await start(guest, host, { extraArguments: ["-device", loader] });
  await qemu.waitForRounds(1);
  await qemu.qmp.execute("stop");
  return qemu;
}

/** As much of a program's file as there is memory, from its beginning again where it ends. */
async function writeContents({ memoryMib, contents }: Guest): Promise<void> {
  const program = await Bun.file(process.execPath).bytes();
  const writer = Bun.file(contents).writer();
  for (let left = memoryMib * MIB; left > 0; left -= program.length) {
    await writer.write(program.subarray(0, left));
    await writer.flush();
  }
  await writer.end();
}

async function keep(guest: Guest, snapshot: string): Promise<void> {
  await using source = await startFull(guest, { enter: [] });
  await enablePostcopy(source);
  await captureQemu(source, snapshot);
}
