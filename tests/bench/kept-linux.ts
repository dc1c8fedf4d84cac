/** A Linux of which a share of the memory is in use, kept as a snapshot, and as QEMU itself saves it. */
import { rmSync } from "node:fs";
import { dirname } from "node:path";
import { bootLinux, LinuxPlace } from "../helpers/linux-guest.ts";
import type { LinuxGuest, LinuxMachine } from "../helpers/linux-guest.ts";
import { waitUntil } from "../helpers/deadline.ts";
import { collectRun, destReportOf, sourceReportOf } from "../helpers/postcopy-run.ts";
import type { PostcopyRun } from "../helpers/postcopy-run.ts";
import { machineOf, qemuPath } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { QmpClient } from "../helpers/qmp.ts";
import { spawn } from "../helpers/spawn.ts";
import type { RunningProgram } from "../helpers/spawn.ts";
import { EXECUTABLE } from "./executable.ts";

const MIB_PER_GIB = 1024;
/** Many GiB are filled and saved in a minute or two where much else runs. */
const LONG_MS = 600_000;
/** A machine that all versions have. */
const MACHINE = machineOf("7.2");

/** How QEMU saves, and loads, a guest by itself. */
export type OwnWay = "stream" | "mapped-ram";

/** A guest that can be brought back. */
export interface KeptLinux {
  version: QemuVersion;
  gib: number;
  snapshot: string;
  saved: Partial<Record<OwnWay, string>>;
}

/** One restore: milliseconds from the moment in which QEMU's monitor answers, and until then. */
export interface Restore {
  startMs: number;
  runningMs: number;
}

/** Guests of one comparison, each made when it is first asked for, and removed with the process. */
export class KeptGuests {
  readonly #place = new LinuxPlace();
  readonly #share: number;
  readonly #ways: readonly OwnWay[];
  readonly #guests = new Map<string, Promise<KeptLinux>>();

  /** `share` of each guest's memory is a file without a page of zeros; `ways` says who else saves it. */
  constructor(share: number, ways: readonly OwnWay[]) {
    this.#share = share;
    this.#ways = ways;
    const directory = dirname(this.#place.file("any"));
    process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
  }

  async #kept(version: QemuVersion, gib: number): Promise<KeptLinux> {
    const key = `${version}-${gib}`;
    let kept = this.#guests.get(key);
    if (kept === undefined) this.#guests.set(key, (kept = this.#keep(version, gib)));
    return await kept;
  }

  async #keep(version: QemuVersion, gib: number): Promise<KeptLinux> {
    const name = `kept-${version}-${gib}`;
    await using guest = await bootLinux(this.#place, machineFor(version, gib, name));
    await guest.ask("dd if=/dev/urandom of=/data/block bs=1M count=1");
    const blocks = Math.floor(gib * MIB_PER_GIB * this.#share);
    await guest.ask("mount -o remount,size=100% /data 2>/dev/null; true");
    await guest.ask(`for i in $(seq ${blocks}); do cat /data/block; done >/data/file`, LONG_MS);
    const saved: KeptLinux["saved"] = {};
    for (const way of this.#ways) {
      if (way === "mapped-ram" && version === "7.2") continue;
      saved[way] = this.#place.file(`${name}.${way}`);
      await saveByQemu(guest, saved[way], way);
    }
    const snapshot = this.#place.file(`${name}.snapshot`);
    await keepByOurs(guest, snapshot);
    const kept = { version, gib, snapshot, saved };
    // The first restore records the working set.
    await this.#restore(kept, []);
    return kept;
  }

  /**
   * Brings a guest back by our source, given up once it runs. `clone` tells apart those that are brought
   * back at once.
   */
  async restore(version: QemuVersion, gib: number, clone = 0): Promise<Restore> {
    return await this.#restore(await this.#kept(version, gib), ["--no-record"], clone);
  }

  async #restore(
    { version, gib, snapshot }: KeptLinux,
    flags: readonly string[],
    clone = 0,
  ): Promise<Restore> {
    const machine = machineFor(version, gib, `restored-${gib}-${clone}`);
    await using guest = this.#place.guest(machine.name);
    const words = ["source", "--guest", `snapshot:${snapshot}`, ...flags];
    words.push("--journal", this.#place.file("journal"), "--again");
    words.push("--run", this.#place.commandLine(machine));
    await using program = spawn([EXECUTABLE, ...words, "--json"], { lifeMs: LONG_MS });
    const run = await collectRun(program, async ({ event }) => {
      if (event !== "running") return;
      await guest.waitForNumbers(1);
      await giveUp(program);
    });
    if (run.report?.role !== "source") throw new Error(run.stderr);
    const { times, qemu } = run.report;
    const startMs = qemu?.startMs ?? Number.NaN;
    const runningMs = (times.toRunning ?? Number.NaN) - startMs;
    if (Number.isNaN(runningMs)) throw new Error(`it did not run: ${run.stderr}`);
    return { startMs, runningMs };
  }

  /** QEMU's own load of what it saved itself: milliseconds from the command until the guest runs. */
  async loadByQemu(version: QemuVersion, gib: number, way: OwnWay): Promise<number> {
    const { saved } = await this.#kept(version, gib);
    const path = saved[way];
    if (path === undefined) throw new Error(`nothing was saved as ${way}`);
    const machine = machineFor(version, gib, `loaded-${gib}`);
    await using guest = await this.#place.startIncoming(machine);
    await using qmp = await QmpClient.connect(guest.monitor);
    await setMappedRam(qmp, way);
    const startedMs = performance.now();
    const uri = way === "stream" ? `exec:cat ${path}` : `file:${path}`;
    await qmp.execute("migrate-incoming", { uri });
    await qmp.waitForEvent("RESUME", { limitMs: LONG_MS });
    const ms = performance.now() - startedMs;
    await guest.waitForNumbers(1);
    return ms;
  }
}

function machineFor(version: QemuVersion, gib: number, name: string): LinuxMachine {
  const memoryMib = gib * MIB_PER_GIB;
  return { name, program: [qemuPath(version)], machine: MACHINE, memoryMib };
}

/** mapped-ram goes with several threads, which is how QEMU is fastest. */
async function setMappedRam(qmp: QmpClient, way: OwnWay): Promise<void> {
  if (way !== "mapped-ram") return;
  const capabilities = ["mapped-ram", "multifd"].map((capability) => ({ capability, state: true }));
  await qmp.execute("migrate-set-capabilities", { capabilities });
  await qmp.execute("migrate-set-parameters", {
    "multifd-channels": navigator.hardwareConcurrency,
  });
}

/** Has QEMU migrate into a file, after which the guest goes on. */
async function saveByQemu(guest: LinuxGuest, path: string, way: OwnWay): Promise<void> {
  await using qmp = await QmpClient.connect(guest.monitor);
  await setMappedRam(qmp, way);
  await qmp.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 40 });
  await qmp.execute("migrate", { uri: way === "stream" ? `exec:cat > ${path}` : `file:${path}` });
  const over = async (): Promise<boolean> => {
    const { status } = await qmp.execute<{ status?: string }>("query-migrate");
    if (status === "failed") throw new Error("QEMU could not save its guest");
    return status === "completed";
  };
  await waitUntil(over, "QEMU's migration into a file", LONG_MS);
  const off = ["mapped-ram", "multifd"].map((capability) => ({ capability, state: false }));
  if (way === "mapped-ram") await qmp.execute("migrate-set-capabilities", { capabilities: off });
  await qmp.execute("cont");
}

async function keepByOurs(guest: LinuxGuest, snapshot: string): Promise<void> {
  let sending: Promise<PostcopyRun> | undefined;
  const listen = ["dest", "--guest", `snapshot:${snapshot}`, "--listen", "tcp:127.0.0.1:0"];
  await using dest = spawn([EXECUTABLE, ...listen, "--json"], { lifeMs: LONG_MS });
  const received = await collectRun(dest, ({ event, peer }) => {
    if (event !== "listening") return;
    sending = sendByQemu(guest, String(peer));
  });
  destReportOf(received);
  if (sending !== undefined) sourceReportOf(await sending);
}

async function sendByQemu(guest: LinuxGuest, peer: string): Promise<PostcopyRun> {
  const words = ["--guest", `qemu:${guest.monitor}`, "--switchover", "now", "--no-journal"];
  const command = [EXECUTABLE, "source", ...words, "--to", peer, "--json"];
  await using source = spawn(command, { lifeMs: LONG_MS });
  return await collectRun(source);
}

/** Interrupts a restore whose guest runs already, which must be asked for twice. */
async function giveUp(program: RunningProgram): Promise<void> {
  program.kill("SIGINT");
  await program.stderr.waitForLine(/Interrupt once more/);
  program.kill("SIGINT");
}
