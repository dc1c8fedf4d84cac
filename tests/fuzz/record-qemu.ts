/**
 * Real streams of a real QEMU, small ones: a guest of 2 MiB that counts in 16 pages of it, with
 * firmware of our own. One QEMU of a version sends its guest over and over, in every way that it
 * knows, to a destination that only keeps the bytes.
 */
import { connect } from "node:net";

import { buildBootSector } from "../helpers/boot-sector.ts";
import { DEFAULT_WAIT_MS, waitUntil } from "../helpers/deadline.ts";
import { machineOf, qemuProgram } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { startQemu } from "../helpers/qemu.ts";
import type { Qemu } from "../helpers/qemu.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { isWholeStream, readModel } from "./model.ts";
import type { ModelBlock } from "./model-memory.ts";
import { SinkDestination } from "./sink.ts";
import { buildFirmware } from "./tiny-firmware.ts";

/** 16 pages that change all the time. */
const RANGE = { startAddress: 0x10_0000, endAddress: 0x11_0000 };
const BOOT_SECTOR = buildBootSector(RANGE);
export const MEMORY_MIB = 2;
const PAGE = 4096;
const TRIES_MAX = 5;
const RECOVERY_LIMIT_MS = 5000;
/** Bytes a second at which a guest that changes 64 KiB all the time never comes to an end. */
const SLOW = { "max-bandwidth": 400_000, "downtime-limit": 1 };
/** One that must not come to its end before it is switched over. */
const NEVER = { ...SLOW, "downtime-limit": 0 };
const FAST = { "max-bandwidth": 0, "downtime-limit": 2_000_000 };

/** A recording, by the name under which it is kept: "stream.7.2.postcopy". */
export type Recordings = Map<string, Uint8Array>;

interface Way {
  name: string;
  versions: readonly QemuVersion[];
  capabilities: readonly string[];
  parameters?: Record<string, unknown>;
  /** Precopy rounds before the rest is sent in one go, or before the switch. */
  rounds: number;
  postcopy?: boolean;
  /** The link breaks after the switch, and the source comes back. */
  cut?: boolean;
}

const ALL: readonly QemuVersion[] = ["7.2", "10.0", "11.1"];
const NEW: readonly QemuVersion[] = ["10.0", "11.1"];

/** `compress` went with 9.1; multifd that can be taken came with 9.0. */
const WAYS: readonly Way[] = [
  { name: "precopy", versions: ALL, capabilities: [], rounds: 0 },
  { name: "uuid", versions: ALL, capabilities: ["validate-uuid", "return-path"], rounds: 0 },
  { name: "xbzrle", versions: ALL, capabilities: ["xbzrle"], rounds: 4 },
  { name: "compress", versions: ["7.2"], capabilities: ["compress"], rounds: 0 },
  { name: "multifd", versions: ALL, capabilities: ["multifd"], rounds: 2 },
  {
    ...{ name: "multifd-zstd", versions: NEW, capabilities: ["multifd"], rounds: 2 },
    parameters: { "multifd-compression": "zstd" },
  },
  {
    ...{ name: "multifd-zlib", versions: NEW, capabilities: ["multifd"], rounds: 0 },
    parameters: { "multifd-compression": "zlib" },
  },
  {
    ...{ name: "postcopy", versions: ALL, capabilities: ["postcopy-ram"], rounds: 0 },
    postcopy: true,
  },
  {
    ...{ name: "preempt", versions: ALL, rounds: 0, postcopy: true },
    capabilities: ["postcopy-ram", "postcopy-preempt"],
    // So slow that pages which are asked for travel on their own channel.
    parameters: { "max-postcopy-bandwidth": 100_000 },
  },
  { name: "mapped", versions: NEW, capabilities: [], rounds: 0 },
  {
    ...{ name: "recovery", versions: ALL, capabilities: ["postcopy-ram"], rounds: 0 },
    ...{ postcopy: true, cut: true },
    // So slow that it is cut off in the middle.
    parameters: { "max-postcopy-bandwidth": 200_000 },
  },
];

const NOTHING = new Uint8Array(0);

const CAPABILITIES = [...new Set(WAYS.flatMap(({ capabilities }) => capabilities))];

/**
 * Records everything that a version can send. What fails is tried again in another QEMU, and left
 * out in the end: a source does not always come back from a link that breaks right after the
 * switch, and a guest of so few pages may have come to its end by then.
 */
export async function recordQemu(version: QemuVersion): Promise<Recordings> {
  const recordings: Recordings = new Map();
  const ways = [...WAYS.filter(({ versions }) => versions.includes(version))];
  for (let tries = 0; tries < TRIES_MAX && ways.length > 0; tries++) {
    try {
      await withQemu(version, async (qemu, directory) => {
        recordings.set(`qmp.${version}`, await recordMonitor(directory.file(SECOND_MONITOR)));
        for (let way = ways[0]; way !== undefined; way = ways[0]) {
          await recordWay(qemu, version, way, recordings, directory.file("mapped"));
          ways.shift();
        }
      });
    } catch {
      // The next QEMU begins with what this one failed at; the last way is the most fragile one.
    }
  }
  return recordings;
}

const SECOND_MONITOR = "second";

/** A file with the firmware, gone afterwards. */
export async function withFirmware<Result>(
  use: (firmware: string, directory: TemporaryDirectory) => Promise<Result>,
): Promise<Result> {
  await using directory = new TemporaryDirectory("record");
  const firmware = directory.file("firmware");
  await Bun.write(firmware, buildFirmware(BOOT_SECTOR));
  return await use(firmware, directory);
}

/** What both ends of a migration of this guest are started with. */
export function smallGuestArguments(firmware: string): string[] {
  const uuid = "5ca1ab1e-0000-4000-8000-0123456789ab";
  return ["-bios", firmware, "-uuid", uuid, "-device", "e1000,romfile="];
}

/** Starts a QEMU whose guest counts. */
async function withQemu(
  version: QemuVersion,
  use: (qemu: Qemu, directory: TemporaryDirectory) => Promise<void>,
): Promise<void> {
  await withFirmware(async (firmware, directory) => {
    const monitor = directory.file(SECOND_MONITOR);
    await using qemu = await startQemu({
      ...{ program: qemuProgram(version), machine: machineOf(version), memoryMib: MEMORY_MIB },
      bootSector: BOOT_SECTOR,
      extraArguments: [
        ...smallGuestArguments(firmware),
        ...["-qmp", `unix:${monitor},server=on,wait=off`],
      ],
    });
    await qemu.waitForRounds(2);
    await use(qemu, directory);
  });
}

/** A guest of so few pages may come to its end by itself before it is told to switch. */
async function recordWay(
  qemu: Qemu,
  version: QemuVersion,
  way: Way,
  recordings: Recordings,
  mapped: string,
): Promise<void> {
  if (way.name === "mapped") return await recordMapped(qemu, version, mapped, recordings);
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    await record(qemu, version, way, recordings);
    if (way.postcopy !== true || way.cut === true) return;
    if (endingOf(recordings.get(`stream.${version}.${way.name}`)) === "postcopy") return;
  }
}

async function prepare(qemu: Qemu, way: Pick<Way, "capabilities" | "parameters">): Promise<void> {
  const known = await qemu.qmp.execute<{ capability: string }[]>("query-migrate-capabilities");
  const wanted = CAPABILITIES.filter((name) => known.some(({ capability }) => capability === name));
  // Preempt needs postcopy, and is switched off before it.
  for (const name of wanted.toReversed()) {
    await qemu.setCapabilities({ [name]: way.capabilities.includes(name) }).catch(() => {});
  }
  for (const name of way.capabilities) await qemu.setCapabilities({ [name]: true });
  await qemu.setCapabilities({ events: true });
  await qemu.qmp.execute("migrate-set-parameters", {
    ...{ "multifd-compression": "none", "multifd-channels": 2, "max-postcopy-bandwidth": 0 },
    ...way.parameters,
  });
}

async function record(
  qemu: Qemu,
  version: QemuVersion,
  way: Way,
  recordings: Recordings,
): Promise<void> {
  await prepare(qemu, way);
  const blocks = blocksOf(recordings.get(`stream.${version}.precopy`));
  const asks = way.postcopy === true && way.cut !== true;
  await using sink = await SinkDestination.start(asks ? { ask: blocks } : {});
  const held = way.rounds > 0 || way.postcopy === true;
  const pace = way.postcopy === true ? NEVER : held ? SLOW : FAST;
  await qemu.qmp.execute("migrate-set-parameters", pace);
  const from = qemu.qmp.events.length;
  await qemu.qmp.execute("migrate", { uri: sink.uri });
  if (held) await waitForRound(qemu, way.rounds);
  if (way.postcopy === true) await qemu.qmp.execute("migrate-start-postcopy");
  else if (held) await qemu.qmp.execute("migrate-set-parameters", FAST);
  if (way.cut === true) {
    // Before that a broken link is the end of it.
    await qemu.waitForMigration("postcopy-active", { from, limitMs: RECOVERY_LIMIT_MS });
    const before = sink.main[0]?.length ?? 0;
    const goesOn = (): boolean => (sink.main[0]?.length ?? 0) > before + PAGE;
    await waitUntil(goesOn, "pages after the switch", RECOVERY_LIMIT_MS);
    sink.cut();
    await qemu.waitForMigration("postcopy-paused", { from, limitMs: RECOVERY_LIMIT_MS });
    await qemu.qmp.execute("migrate-set-parameters", { "max-postcopy-bandwidth": 0 });
    await qemu.qmp.execute("migrate", { uri: sink.uri, resume: true });
  }
  const limitMs = way.cut === true ? RECOVERY_LIMIT_MS : DEFAULT_WAIT_MS;
  await qemu.waitForMigration("completed", { from, limitMs });
  // What is under way in the sockets still.
  const ended = (): boolean => sink.arrivals.every((arrival) => arrival.ended);
  const whole = (): boolean => way.cut === true || isWholeStream(sink.main[0] ?? NOTHING);
  await waitUntil(() => ended() && whole(), "the end of a recording");
  await qemu.qmp.execute("cont");
  keep(recordings, version, way.name, sink);
}

function keep(
  recordings: Recordings,
  version: QemuVersion,
  name: string,
  sink: SinkDestination,
): void {
  const [main, ...more] = sink.main;
  if (main === undefined) throw new Error(`QEMU ${version} sent no stream (${name})`);
  // What was cut off is no whole stream; what counts of it is the recovery.
  recordings.set(`${name === "recovery" ? "broken" : "stream"}.${version}.${name}`, main);
  for (const bytes of more) recordings.set(`recovery.${version}`, bytes);
  const kind = name === "preempt" ? "urgent" : "multifd";
  for (const [index, bytes] of sink.others.entries()) {
    recordings.set(`${kind}.${version}.${name}.${index}`, bytes);
  }
}

async function waitForRound(qemu: Qemu, round: number): Promise<void> {
  await waitUntil(async () => {
    const { ram } = await qemu.qmp.execute<{ ram?: { "dirty-sync-count": number } }>(
      "query-migrate",
    );
    return (ram?.["dirty-sync-count"] ?? 0) >= round;
  }, `precopy round ${round}`);
}

function endingOf(stream: Uint8Array | undefined): string {
  return stream === undefined ? "none" : readModel(stream).ending;
}

function blocksOf(stream: Uint8Array | undefined): readonly ModelBlock[] {
  return stream === undefined ? [] : readModel(stream).blocks;
}

/** A file with fixed places for pages, which only a file can have. */
async function recordMapped(
  qemu: Qemu,
  version: QemuVersion,
  file: string,
  recordings: Recordings,
): Promise<void> {
  await prepare(qemu, { capabilities: [] });
  await qemu.setCapabilities({ "mapped-ram": true });
  await qemu.qmp.execute("migrate-set-parameters", FAST);
  const from = qemu.qmp.events.length;
  await qemu.qmp.execute("migrate", { uri: `file:${file}` });
  await qemu.waitForMigration("completed", { from });
  recordings.set(`mapped.${version}`, await Bun.file(file).bytes());
}

/** What a monitor says to a program that asks it everything that this one does. */
async function recordMonitor(path: string): Promise<Uint8Array> {
  const socket = connect({ path });
  const parts: Buffer[] = [];
  socket.on("data", (part: Buffer) => parts.push(part));
  const commands = [
    "qmp_capabilities",
    "query-status",
    "query-migrate-capabilities",
    "query-migrate-parameters",
    "query-migrate",
  ];
  for (const [index, execute] of commands.entries()) {
    socket.write(`${JSON.stringify({ execute, id: index + 1 })}\n`);
  }
  const last = `"id": ${commands.length}`;
  await waitUntil(() => Buffer.concat(parts).includes(last), "the monitor's answers");
  socket.destroy();
  return new Uint8Array(Buffer.concat(parts));
}
