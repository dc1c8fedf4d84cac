/**
 * How soon a kept Linux runs again, by the size of its memory: beside QEMU's own start, and beside
 * QEMU's own load of the same guest from a file.
 *
 *     bun scripts/bench-restore.ts [--qemu 7.2,11.1] [--sizes 1,4,8] [--share 0.4] [--runs N]
 *         [--json FILE]
 *
 * Two fifths of each guest's memory (--share) are a file in tmpfs, no page of which is zeros. Sizes take
 * turns, so that a machine whose speed drifts is the same for all; all files lie in the page cache.
 * Needs `npm run build`, `npm run qemus` and `npm run linux-guest`, and room for twice the memory that
 * is in use.
 */
import { parseArgs } from "node:util";
import { statSync } from "node:fs";
import { join } from "node:path";
import { bootLinux, LinuxPlace } from "../tests/helpers/linux-guest.ts";
import type { LinuxGuest, LinuxMachine } from "../tests/helpers/linux-guest.ts";
import { collectRun, destReportOf, sourceReportOf } from "../tests/helpers/postcopy-run.ts";
import type { PostcopyRun } from "../tests/helpers/postcopy-run.ts";
import { machineOf, QEMU_VERSIONS, qemuPath } from "../tests/helpers/qemu-versions.ts";
import type { QemuVersion } from "../tests/helpers/qemu-versions.ts";
import { QmpClient } from "../tests/helpers/qmp.ts";
import { PROJECT_ROOT, spawn } from "../tests/helpers/spawn.ts";
import type { RunningProgram } from "../tests/helpers/spawn.ts";
import { waitUntil } from "../tests/helpers/deadline.ts";

/** What operators use; from the sources it takes twice as long. */
const EXECUTABLE = join(PROJECT_ROOT, "dist", "postcopy");
const MIB_PER_GIB = 1024;
const MACHINE = machineOf("7.2");
/** Eight GiB are filled, and pushed, in a minute or two where much else runs. */
const LONG_MS = 600_000;
/** Turns of what takes many seconds: all pages brought back, and QEMU's own load of all of them. */
const WHOLE_RUNS_MAX = 2;

interface Sample {
  /** Milliseconds from starting QEMU's process to its monitor's answer. */
  start: number;
  /** From there until the guest ran. */
  running: number;
  /** From there until the recorded working set was in place, and until no page was missing. */
  useful: number;
  drained: number;
}

/** What is measured. */
interface Settings {
  sizes: readonly number[];
  /** Of each guest's memory, what its file takes. */
  share: number;
  runs: number;
}

interface Kept {
  gib: number;
  snapshot: string;
  /** The same guest, as QEMU saved it by itself. */
  stream: string;
  samples: Sample[];
  /** Of restores to the last page; all others are given up as soon as the guest runs. */
  whole: Sample[];
  /** Milliseconds from migrate-incoming to RESUME in QEMU's own load. */
  plain: number[];
}

async function postcopy(
  words: readonly string[],
  see?: Parameters<typeof collectRun>[1],
): Promise<PostcopyRun> {
  await using program = spawn([EXECUTABLE, ...words, "--json"], { lifeMs: LONG_MS });
  return await collectRun(program, see);
}

/** A Linux of that size, filled, and kept both ways. */
async function keepLinux(
  place: LinuxPlace,
  version: QemuVersion,
  gib: number,
  share: number,
): Promise<Kept> {
  const name = `kept-${gib}`;
  const memoryMib = gib * MIB_PER_GIB;
  const program = [qemuPath(version)];
  await using guest = await bootLinux(place, { name, program, machine: MACHINE, memoryMib });
  await guest.ask("dd if=/dev/urandom of=/data/block bs=1M count=1");
  const fill = `for i in $(seq ${Math.floor(memoryMib * share)}); do cat /data/block; done`;
  await guest.ask(`${fill} >/data/file`, LONG_MS);
  const stream = place.file(`${name}.stream`);
  await saveByQemu(guest, stream);
  const snapshot = place.file(`${name}.snapshot`);
  let sending: Promise<PostcopyRun> | undefined;
  const listen = ["--guest", `snapshot:${snapshot}`, "--listen", "tcp:127.0.0.1:0"];
  const received = await postcopy(["dest", ...listen], ({ event, peer }) => {
    if (event !== "listening") return;
    const send = ["--guest", `qemu:${guest.monitor}`, "--switchover", "now", "--no-journal"];
    sending = postcopy(["source", ...send, "--to", String(peer)]);
  });
  destReportOf(received);
  if (sending !== undefined) sourceReportOf(await sending);
  return { gib, snapshot, stream, samples: [], whole: [], plain: [] };
}

/** Has QEMU migrate into a file, after which the guest goes on. */
async function saveByQemu(guest: LinuxGuest, path: string): Promise<void> {
  await using qmp = await QmpClient.connect(guest.monitor);
  await qmp.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 40 });
  await qmp.execute("migrate", { uri: `exec:cat > ${path}` });
  const over = async (): Promise<boolean> => {
    const { status } = await qmp.execute<{ status?: string }>("query-migrate");
    if (status === "failed") throw new Error("QEMU could not save its guest");
    return status === "completed";
  };
  await waitUntil(over, "QEMU's migration into a file", LONG_MS);
  await qmp.execute("cont");
}

function machineFor(version: QemuVersion, gib: number, name: string): LinuxMachine {
  const memoryMib = gib * MIB_PER_GIB;
  return { name, program: [qemuPath(version)], machine: MACHINE, memoryMib };
}

/** Interrupts a restore whose guest runs already, which must be asked for twice. */
async function giveUp(program: RunningProgram): Promise<void> {
  program.kill("SIGINT");
  await program.stderr.waitForLine(/Interrupt once more/);
  program.kill("SIGINT");
}

/**
 * One restore, to the last page or until the guest runs. Without `record` it leaves the working set
 * as it was recorded.
 */
async function restore(
  place: LinuxPlace,
  version: QemuVersion,
  { gib, snapshot }: Kept,
  { whole, record = false }: { whole: boolean; record?: boolean },
): Promise<Sample> {
  const machine = machineFor(version, gib, `restored-${gib}`);
  await using guest = place.guest(machine.name);
  const journal = ["--journal", place.file("journal")];
  const words = ["source", "--json", ...journal, "--guest", `snapshot:${snapshot}`];
  if (!record) words.push("--no-record");
  words.push("--run", place.commandLine(machine));
  await using program = spawn([EXECUTABLE, ...words], { lifeMs: LONG_MS });
  const run = await collectRun(program, async ({ event }) => {
    if (event !== "running" || whole) return;
    await guest.waitForNumbers(1);
    await giveUp(program);
  });
  if (run.report?.role !== "source" || (whole && run.exitCode !== 0)) throw new Error(run.stderr);
  const { times, workingSet, qemu } = run.report;
  const start = qemu?.startMs ?? Number.NaN;
  const since = (ms: number | null | undefined): number => (ms ?? Number.NaN) - start;
  return {
    start,
    running: since(times.toRunning),
    useful: since(workingSet?.toInPlaceMs),
    drained: since(times.toDrained),
  };
}

/** QEMU's own load of its own file: milliseconds from the command until the guest runs. */
async function loadByQemu(place: LinuxPlace, version: QemuVersion, kept: Kept): Promise<number> {
  const machine = machineFor(version, kept.gib, `loaded-${kept.gib}`);
  await using guest = await place.startIncoming(machine);
  await using qmp = await QmpClient.connect(guest.monitor);
  const startedMs = performance.now();
  await qmp.execute("migrate-incoming", { uri: `exec:cat ${kept.stream}` });
  await qmp.waitForEvent("RESUME", { limitMs: LONG_MS });
  const ms = performance.now() - startedMs;
  await guest.waitForNumbers(1);
  return ms;
}

interface Figure {
  median: number;
  minimum: number;
  maximum: number;
}

function figure(values: readonly number[]): Figure {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (index: number): number => sorted[index] ?? Number.NaN;
  return {
    median: at(Math.floor(sorted.length / 2)),
    minimum: at(0),
    maximum: at(sorted.length - 1),
  };
}

interface Row {
  qemu: QemuVersion;
  gib: number;
  /** On disk, of the stream that QEMU saved. */
  streamBytes: number;
  start: Figure;
  running: Figure;
  useful: Figure;
  drained: Figure;
  plainLoad: Figure;
}

async function measure(version: QemuVersion, { sizes, share, runs }: Settings): Promise<Row[]> {
  await using place = new LinuxPlace();
  const guests: Kept[] = [];
  for (const gib of sizes) guests.push(await keepLinux(place, version, gib, share));
  // The first one records the working set, and warms the page cache; it does not count.
  for (const kept of guests) await restore(place, version, kept, { whole: true, record: true });
  for (let run = 0; run < runs; run++) {
    for (const kept of guests) {
      kept.samples.push(await restore(place, version, kept, { whole: false }));
    }
    if (run >= WHOLE_RUNS_MAX) continue;
    for (const kept of guests) {
      kept.whole.push(await restore(place, version, kept, { whole: true }));
      kept.plain.push(await loadByQemu(place, version, kept));
    }
  }
  return guests.map(({ gib, samples, whole, plain, stream }) => {
    const all = [...samples, ...whole];
    const of = (key: keyof Sample): Figure =>
      figure(all.map((sample) => sample[key]).filter((ms) => !Number.isNaN(ms)));
    return {
      ...{ qemu: version, gib, streamBytes: statSync(stream).size },
      ...{ start: of("start"), running: of("running"), useful: of("useful") },
      ...{ drained: of("drained"), plainLoad: figure(plain) },
    };
  });
}

function describe({ qemu, gib, start, running, useful, drained, plainLoad }: Row): string {
  const show = ({ median, minimum, maximum }: Figure): string =>
    `${median.toFixed(0)} (${minimum.toFixed(0)} to ${maximum.toFixed(0)})`;
  const cells = [start, running, useful, drained, plainLoad].map(show);
  return `| ${[qemu, `${gib} GiB`, ...cells].join(" | ")} |`;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      qemu: { type: "string", default: "7.2,11.1" },
      sizes: { type: "string", default: "1,4,8" },
      share: { type: "string", default: "0.4" },
      runs: { type: "string", default: "9" },
      json: { type: "string" },
    },
  });
  const asked = values.qemu.split(",");
  const settings = {
    sizes: values.sizes.split(",").map(Number),
    share: Number(values.share),
    runs: Number(values.runs),
  };
  const rows: Row[] = [];
  console.log("ms, median (minimum to maximum); all but the first from QEMU's start on");
  console.log("| QEMU | memory | QEMU's start | running | useful | drained | QEMU's own load |");
  console.log("| ---- | ------ | ------------ | ------- | ------ | ------- | --------------- |");
  for (const version of QEMU_VERSIONS.filter((each) => asked.includes(each))) {
    const measured = await measure(version, settings);
    for (const row of measured) console.log(describe(row));
    rows.push(...measured);
  }
  if (values.json !== undefined) await Bun.write(values.json, JSON.stringify(rows, null, 2));
}

await main();
