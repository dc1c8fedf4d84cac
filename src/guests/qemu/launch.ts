/**
 * A QEMU that is started here to have a guest restored in it, and left running on its own. It gets a
 * private monitor and a private incoming socket; what it prints goes to a file, because it outlives
 * this program, and its own words are the error when it does not do what it should.
 */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { QmpClient } from "../../qmp/client.ts";
import { PostcopyError, UsageError } from "../../util/errors.ts";
import type { ErrorDetails } from "../../util/errors.ts";
import { startedByShell } from "../../util/processes.ts";
import { quoted } from "../../util/units.ts";
import { queryMigrate } from "./migration.ts";
import { ChangedSettings } from "./settings.ts";

/** Pause between two tries to reach the monitor of a QEMU that is just starting. */
const LOOK_AGAIN_MS = 2;
/** How long a QEMU may take until its monitor answers; pinned huge memory takes many seconds. */
const START_TIMEOUT_MS = 120_000;
/** How long a QEMU that failed may take to say its last words and end. */
const LAST_WORDS_MS = 1000;
/** How long a QEMU may take to obey SIGTERM: one that waits for itself never does. */
const TERMINATE_MS = 1000;
/** What is shown of what QEMU printed: its last lines. */
const WORDS_BYTES_MAX = 4096;

/** The first release that reads the stream before its preempt channel is there. */
const PREEMPT_LATER_MAJOR = 8;

/** QEMU did not do what it should; the message has its own words. */
export class QemuError extends PostcopyError {}

/** @throws UsageError when the command has an -incoming of its own. */
export function checkRunCommand(command: string): void {
  const has = (option: string): boolean => {
    return new RegExp(`(^|\\s)--?${option}(\\s|=|$)`).test(command);
  };
  if (has("incoming")) {
    throw new UsageError("CONTRADICTION", "Flag --run: the command has -incoming already", {
      hint: "leave it out: it is added, together with a monitor of its own",
    });
  }
  if (has("daemonize")) {
    throw new UsageError("CONTRADICTION", "Flag --run: the command has -daemonize", {
      hint: "leave it out: the QEMU is left running on its own in any case",
    });
  }
}

export class LaunchedQemu {
  /** Its monitor, once `ready` has resolved. */
  #qmp: QmpClient | undefined;
  readonly #directory = mkdtempSync(join(tmpdir(), "postcopy-"));
  readonly #log: string;
  readonly #process: Bun.Subprocess;
  readonly #startedMs = performance.now();
  readonly #endWithUs = (): void => {
    this.#signal("SIGKILL");
    this.#removeDirectory();
  };
  #changed: ChangedSettings | undefined;
  /** From starting the process to the monitor's answer, in milliseconds. */
  startMs: number | null = null;
  /** Whether it has the whole guest, and so is no longer ended with this program. */
  handedOver = false;

  /**
   * Starts `command`, a line for the shell; what it prints goes to `logFile`, or to errors only.
   * @throws UsageError when that cannot be written.
   */
  constructor(command: string, logFile: string | undefined) {
    // An interrupt ends this program where it stands: a QEMU without a guest must not stay behind.
    process.once("exit", this.#endWithUs);
    this.#log = logFile ?? join(this.#directory, "output");
    const output = openLog(this.#log);
    const added = ["-incoming", "defer", "-qmp", `unix:${this.monitorPath},server=on,wait=off`];
    this.#process = Bun.spawn(["/bin/sh", "-c", `${command} "$@"`, "sh", ...added], {
      stdin: "ignore",
      stdout: output,
      stderr: output,
      // A session of its own: a Ctrl-C is for this program to answer.
      detached: true,
    });
    this.#process.unref();
    closeSync(output);
  }

  /** Where its monitor is: private to this program, unless it is found again by the journal. */
  get monitorPath(): string {
    return join(this.#directory, "monitor");
  }

  /** Its monitor. */
  get qmp(): QmpClient {
    if (this.#qmp === undefined) throw new Error("QEMU is not ready");
    return this.#qmp;
  }

  /** The process that was started: a shell, or what it has made way for. */
  get shellPid(): number {
    return this.#process.pid;
  }

  /** The process of QEMU. */
  get pid(): number {
    return startedByShell(this.shellPid);
  }

  /** Whether the process has ended. */
  get ended(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  /** Resolves when the monitor answers. @throws QemuError with QEMU's words when it ends first. */
  async ready(): Promise<void> {
    const deadline = this.#startedMs + START_TIMEOUT_MS;
    for (;;) {
      // The socket appears at bind, a moment before connections are taken.
      if (statSync(this.monitorPath, { throwIfNoEntry: false }) !== undefined) {
        this.#qmp = await QmpClient.connect(this.monitorPath).catch(() => undefined);
        if (this.#qmp !== undefined) break;
      }
      if (this.ended) throw this.#error("The QEMU of --run ended before it could take the guest");
      if (performance.now() > deadline) {
        throw this.#error(`The QEMU of --run has no monitor after ${START_TIMEOUT_MS / 1000} s`);
      }
      await Bun.sleep(LOOK_AGAIN_MS);
    }
    this.startMs = performance.now() - this.#startedMs;
  }

  /**
   * Switches on what this QEMU can do and has it listen. Returns the path of its incoming socket and
   * whether it takes a preempt channel. @throws QmpError, QemuError.
   */
  async listen(): Promise<{ path: string; preempt: boolean; preemptFirst: boolean }> {
    this.#changed = await ChangedSettings.change(this.qmp, {
      needed: { "postcopy-ram": true },
      wished: { events: true, "postcopy-preempt": true, "postcopy-blocktime": true },
      parameters: {},
    });
    const path = join(this.#directory, "incoming");
    await this.qmp.run("migrate-incoming", { uri: `unix:${path}` });
    const preempt = this.#changed.names.has("postcopy-preempt");
    const preemptFirst = Number.parseInt(this.qmp.version, 10) < PREEMPT_LATER_MAJOR;
    return { path, preempt, preemptFirst };
  }

  /** What it printed last. */
  words(): string {
    try {
      return readFileSync(this.#log).subarray(-WORDS_BYTES_MAX).toString().trim();
    } catch {
      return "";
    }
  }

  #error(what: string, details: ErrorDetails = {}): QemuError {
    const words = this.words();
    const code = this.#process.exitCode;
    const end = this.ended ? ` (exit code ${code ?? this.#process.signalCode})` : "";
    const said =
      words === "" ? `${what}${end}; it printed nothing` : `${what}${end}. It says:\n${words}`;
    return new QemuError("QEMU_FAILED", said, details);
  }

  /**
   * Why the restore failed, as QEMU tells it: what it printed, and the reason its monitor gives. Waits
   * a moment, as the broken connection is noticed here before QEMU has said why. `ran`: the guest ran
   * in it already.
   */
  async explain(cause: Error, ran: boolean): Promise<QemuError | undefined> {
    const deadline = performance.now() + LAST_WORDS_MS;
    const reason = await this.#reason().catch(() => undefined);
    // The shell tells of a signal a moment before it ends itself.
    const pending = (): boolean => !this.ended && (ran || this.words() === "");
    while (pending() && performance.now() < deadline) await Bun.sleep(LOOK_AGAIN_MS);
    if (reason !== undefined && !this.words().includes(reason)) {
      return new QemuError("QEMU_FAILED", `QEMU did not take the guest: ${reason}`, { cause });
    }
    if (!this.ended && this.words() === "") return undefined;
    if (this.ended && ran)
      return this.#error("QEMU ended before all memory of its guest was there", {
        hint: "what was kept is as it was: it can be restored again",
      });
    return this.#error("QEMU did not take the guest", { cause });
  }

  /** The reason that the monitor gives for a failed migration (8.0 and later). */
  async #reason(): Promise<string | undefined> {
    if (this.#qmp === undefined || this.ended) return undefined;
    return (await queryMigrate(this.#qmp))["error-desc"];
  }

  /** All of the guest is in it: it runs on from here, however this program ends. */
  handOver(): void {
    this.handedOver = true;
    process.off("exit", this.#endWithUs);
  }

  /**
   * Leaves it running on its own: nothing of ours stays but what --run-log named, and no capability is
   * on that nobody asked for.
   */
  async release(): Promise<void> {
    await this.#changed?.putBack();
    this.#qmp?.close();
    this.#removeDirectory();
  }

  /** Ends it: with SIGTERM, and with SIGKILL where that is not obeyed. */
  async kill(): Promise<void> {
    this.#qmp?.close();
    this.#signal("SIGTERM");
    const deadline = performance.now() + TERMINATE_MS;
    while (!this.ended && performance.now() < deadline) await Bun.sleep(LOOK_AGAIN_MS);
    this.#signal("SIGKILL");
    await this.#process.exited;
    process.off("exit", this.#endWithUs);
    this.#removeDirectory();
  }

  /** To the whole session: the shell may stand between us and QEMU. */
  #signal(signal: "SIGTERM" | "SIGKILL"): void {
    try {
      process.kill(-this.#process.pid, signal);
    } catch {
      // It has ended.
    }
  }

  #removeDirectory(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** A file for what QEMU prints; its guest's secrets may be among it. */
function openLog(file: string): number {
  try {
    return openSync(file, "w", 0o600);
  } catch (cause) {
    throw new UsageError("BAD_VALUE", `Flag --run-log: ${quoted(file)} cannot be written`, {
      cause,
      hint: "name a file in a directory that exists and is yours",
    });
  }
}
