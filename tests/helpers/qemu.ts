/**
 * A real QEMU that runs the boot-sector guest, for interoperability tests and the baseline
 * benchmark:
 *
 *     await using source = await startQemu();
 *     await source.waitForRounds(3);
 *     await source.qmp.execute("migrate", { uri });
 *
 * It is emulated (TCG), as KVM is not there on every machine that runs the tests; post-copy takes
 * the same path in both. Disposing kills it with SIGKILL: a QEMU whose own threads wait for pages
 * that will never come does not obey SIGTERM.
 */
import { statSync } from "node:fs";

import { DEFAULT_RANGE, ROUND_LETTER, STARTED_LETTER, buildBootSector } from "./boot-sector.ts";
import type { BootSectorRange } from "./boot-sector.ts";
import { waitUntil } from "./deadline.ts";
import { checkPattern } from "./memory-pattern.ts";
import type { Count } from "./memory-pattern.ts";
import { QmpClient } from "./qmp.ts";
import type { QmpEvent } from "./qmp.ts";
import type { RunningProgram } from "./spawn.ts";
import { spawn } from "./spawn.ts";
import { TemporaryDirectory } from "./temporary-directory.ts";

/** How long one QEMU may live; a test that hangs must not leave it behind. */
const LIFE_MS = 300_000;
/** The BIOS needs a second or two under emulation on a busy machine. */
const BOOT_LIMIT_MS = 60_000;

/** Enough to be on the move for a while, at half the cost of 128. */
export const DEFAULT_MEMORY_MIB = 64;

/** How to start one QEMU: program and first arguments, and variables it needs. */
export interface QemuProgram {
  command: readonly string[];
  environment?: Record<string, string>;
}

export interface QemuOptions {
  /** Which QEMU; the machine's own `qemu-system-x86_64` if absent. */
  program?: QemuProgram;
  /** `-machine`; both ends of a migration need the same one. */
  machine?: string;
  memoryMib?: number;
  /** `-incoming`: an address, or "defer". The guest then waits for a migration. */
  incoming?: string;
  /** The 512 bytes to boot; the counting guest over DEFAULT_RANGE if absent. */
  bootSector?: Uint8Array;
  /** Connect to the monitor so that commands may be sent out of band. */
  outOfBand?: boolean;
  /** Further arguments; none of them takes the default devices back. */
  extraArguments?: readonly string[];
}

/** The path of the QEMU of this machine, or null where there is none. */
export function findQemu(): string | null {
  return Bun.which("qemu-system-x86_64");
}

function qemuArguments(directory: TemporaryDirectory, options: QemuOptions): string[] {
  return [
    ...["-machine", options.machine ?? "pc", "-accel", "tcg"],
    ...["-m", `${options.memoryMib ?? DEFAULT_MEMORY_MIB}M`],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-drive", `if=none,id=boot,format=raw,file=${directory.file("boot.img")}`],
    ...["-device", "ide-hd,drive=boot,bootindex=0"],
    ...["-qmp", `unix:${directory.file("qmp")},server=on,wait=off`],
    ...["-chardev", `file,id=com1,path=${directory.file("serial")}`, "-serial", "chardev:com1"],
    ...(options.incoming === undefined ? [] : ["-incoming", options.incoming]),
    ...(options.extraArguments ?? []),
  ];
}

/** Starts a QEMU and connects to its monitor; fails with QEMU's own words if it does not come up. */
export async function startQemu(options: QemuOptions = {}): Promise<Qemu> {
  const directory = new TemporaryDirectory("qemu");
  let program: RunningProgram | undefined;
  try {
    await Bun.write(directory.file("boot.img"), options.bootSector ?? buildBootSector());
    const { command, environment } = options.program ?? { command: ["qemu-system-x86_64"] };
    program = spawn([...command, ...qemuArguments(directory, options)], {
      environment: environment ?? {},
      lifeMs: LIFE_MS,
    });
    const qmp = await connectToMonitor(program, directory.file("qmp"), options.outOfBand === true);
    return new Qemu(directory, program, qmp);
  } catch (error) {
    await program?.[Symbol.asyncDispose]();
    await directory[Symbol.asyncDispose]();
    throw error;
  }
}

async function connectToMonitor(
  program: RunningProgram,
  path: string,
  outOfBand: boolean,
): Promise<QmpClient> {
  return await waitUntil(async () => {
    if (!program.running) throw new Error(`QEMU did not start\n${program.stderr.tail}`);
    // The socket file appears at bind, a moment before connections are taken.
    return await QmpClient.connect(path, { outOfBand }).catch(() => undefined);
  }, "QEMU's monitor");
}

export class Qemu implements AsyncDisposable {
  readonly qmp: QmpClient;
  readonly program: RunningProgram;
  readonly #directory: TemporaryDirectory;

  constructor(directory: TemporaryDirectory, program: RunningProgram, qmp: QmpClient) {
    this.#directory = directory;
    this.program = program;
    this.qmp = qmp;
  }

  /** What the guest has printed on its first serial port, in this QEMU. */
  async serial(): Promise<string> {
    return await Bun.file(this.#directory.file("serial")).text();
  }

  /** Bytes the guest has printed so far. */
  #serialBytes(): number {
    return statSync(this.#directory.file("serial")).size;
  }

  /** Waits until the boot-sector guest has started and ended `rounds` rounds in this QEMU. */
  async waitForRounds(rounds: number): Promise<void> {
    const started = STARTED_LETTER.length;
    await this.waitForSerialBytes(started + rounds * ROUND_LETTER.length);
  }

  /**
   * Waits until the guest has printed `more` bytes, counted from now. On the destination of a
   * migration this shows that the guest has gone on there.
   */
  async waitForMoreSerial(more: number): Promise<void> {
    await this.waitForSerialBytes(this.#serialBytes() + more);
  }

  /** Waits until the guest has printed `bytes` bytes in this QEMU. */
  async waitForSerialBytes(bytes: number): Promise<void> {
    await waitUntil(
      () => {
        if (!this.program.running) throw new Error(`QEMU has ended\n${this.program.stderr.tail}`);
        return this.#serialBytes() >= bytes;
      },
      `${bytes} bytes on the guest's serial port`,
      BOOT_LIMIT_MS,
    );
  }

  /**
   * A copy of guest-physical memory. A running guest is held for the time of the copy: its count
   * would otherwise run through under our eyes and look torn.
   */
  async readMemory(address: number, bytes: number): Promise<Uint8Array> {
    const { running } = await this.qmp.execute<{ running: boolean }>("query-status");
    if (running) await this.qmp.execute("stop");
    const filename = this.#directory.file("memory");
    await this.qmp.execute("pmemsave", { val: address, size: bytes, filename });
    if (running) await this.qmp.execute("cont");
    const memory = await Bun.file(filename).bytes();
    if (memory.length !== bytes) throw new Error(`QEMU gave ${memory.length} bytes, not ${bytes}`);
    return memory;
  }

  /** The count of the boot-sector guest; throws if its memory is wrong (`checkPattern`). */
  async readCount(range: BootSectorRange = DEFAULT_RANGE): Promise<Count> {
    const bytes = range.endAddress - range.startAddress;
    return checkPattern(await this.readMemory(range.startAddress, bytes));
  }

  /**
   * Waits for migration state `status` as QEMU's events tell it, fails on "failed", and gives the
   * event. A guest whose migration has completed can then be told `cont`. Needs the capability `events`. `from`: see QmpClient.waitForEvent.
   */
  async waitForMigration(
    status: string,
    options: { from?: number; limitMs?: number } = {},
  ): Promise<QmpEvent> {
    const event = await this.qmp.waitForEvent("MIGRATION", {
      ...options,
      accept: ({ data }) => data["status"] === status || data["status"] === "failed",
    });
    if (event.data["status"] === status) {
      if (status === "completed") await this.#finalized();
      return event;
    }
    const why = JSON.stringify(await this.qmp.execute("query-migrate"));
    throw new Error(`QEMU's migration failed: ${why}\n${this.program.stderr.tail}`);
  }

  /** The event comes a moment before the run state, until which QEMU refuses `cont`. */
  async #finalized(): Promise<void> {
    await waitUntil(async () => {
      const { status } = await this.qmp.execute<{ status: string }>("query-status");
      return status !== "finish-migrate";
    }, "the end of a migration that has completed");
  }

  /** Has a QEMU started with `incoming: "defer"` listen on a free port of `host`; gives it. */
  async listen(host = "127.0.0.1"): Promise<number> {
    await this.qmp.execute("migrate-incoming", { uri: `tcp:${host}:0` });
    const reply = await this.qmp.execute<{ "socket-address"?: { port: string }[] }>(
      "query-migrate",
    );
    const port = Number(reply["socket-address"]?.[0]?.port);
    if (!Number.isInteger(port)) throw new Error(`QEMU names no port: ${JSON.stringify(reply)}`);
    return port;
  }

  /** Has its migrations go over TLS, with the certificates of a directory. */
  async useTls(directory: string, endpoint: "client" | "server"): Promise<void> {
    const properties = { id: "tls", dir: directory, endpoint, "verify-peer": true };
    await this.qmp.execute("object-add", { "qom-type": "tls-creds-x509", ...properties });
    await this.qmp.execute("migrate-set-parameters", { "tls-creds": "tls" });
  }

  /** Turns migration capabilities on or off. */
  async setCapabilities(capabilities: Record<string, boolean>): Promise<void> {
    const list = Object.entries(capabilities).map(([capability, state]) => ({ capability, state }));
    await this.qmp.execute("migrate-set-capabilities", { capabilities: list });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.qmp[Symbol.asyncDispose]();
    await this.program[Symbol.asyncDispose]();
    await this.#directory[Symbol.asyncDispose]();
  }
}
