/**
 * A real Linux in a QEMU, however that was started: by `bootLinux`, or by a command line of
 * `LinuxPlace` that something else runs. It counts on its first serial port (which goes to a file)
 * and takes commands on its second:
 *
 *     await using place = new LinuxPlace();
 *     await using guest = await bootLinux(place, { name: "first", program: ["qemu-system-x86_64"] });
 *     await guest.ask("sha256sum /data/file");
 *
 * Disposing kills the QEMU that runs it, by the pid that it has written.
 */
import { existsSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import type { Socket } from "node:net";

import { LINUX_BUSYBOX, LINUX_KERNEL } from "../../scripts/linux-guest.ts";
import { waitUntil, withDeadline } from "./deadline.ts";
import { buildInitramfs } from "./initramfs.ts";
import type { Need } from "./need.ts";
import { QmpClient } from "./qmp.ts";
import type { RunningProgram } from "./spawn.ts";
import { spawn } from "./spawn.ts";
import { TemporaryDirectory } from "./temporary-directory.ts";

/** Linux starts in two seconds where nothing else runs, under emulation, and in ten where much does. */
const BOOT_LIMIT_MS = 60_000;
/** How long a command in the guest may take where its caller names no other limit. */
const COMMAND_LIMIT_MS = 60_000;
/** How long one QEMU may live; a test that hangs must not leave it behind. */
const LIFE_MS = 600_000;
const DEFAULT_MEMORY_MIB = 256;

/** What the kernel says while it starts stands before it. */
const FIRST_NUMBER = /^0\n/m;

/** The kernel and the busybox, for `requireOrSkip`. */
export function needLinuxGuest(): Need {
  const there = existsSync(LINUX_KERNEL) && existsSync(LINUX_BUSYBOX);
  return { what: "the Linux guest", missing: there ? undefined : "run: npm run linux-guest" };
}

/** One QEMU that runs, or is to run, a Linux guest. */
export interface LinuxMachine {
  /** Tells the QEMUs of one place apart. */
  name: string;
  /** Program and first arguments. */
  program: readonly string[];
  /** `-machine`; all QEMUs that a guest comes through need the same one. */
  machine?: string;
  memoryMib?: number;
}

/** A directory with the guest's root file system, and all sockets and files of its QEMUs. */
export class LinuxPlace implements AsyncDisposable {
  readonly #directory = new TemporaryDirectory("linux");

  /** Makes the guest's root file system; every QEMU of the place is given it. */
  async prepare(): Promise<void> {
    const busybox = await Bun.file(LINUX_BUSYBOX).bytes();
    await Bun.write(this.file("initrd"), buildInitramfs(busybox));
  }

  /** The path of a file in the directory. */
  file(name: string): string {
    return this.#directory.file(name);
  }

  /** The words that start a QEMU with the guest, or with the same machine for `-incoming`. */
  words({ name, program, machine = "pc", memoryMib = DEFAULT_MEMORY_MIB }: LinuxMachine): string[] {
    const path = (what: string): string => this.file(`${name}.${what}`);
    return [
      ...program,
      ...["-machine", machine, "-accel", "tcg", "-m", `${memoryMib}M`],
      ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
      ...["-kernel", LINUX_KERNEL, "-initrd", this.file("initrd")],
      // What the kernel has to complain about comes out among the numbers, where it is noticed.
      ...["-append", "console=ttyS0 quiet panic=-1"],
      ...["-chardev", `file,id=count,path=${path("count")}`, "-serial", "chardev:count"],
      ...["-chardev", `socket,id=shell,path=${path("shell")},server=on,wait=off`],
      ...["-serial", "chardev:shell"],
      ...["-qmp", `unix:${path("qmp")},server=on,wait=off`, "-pidfile", path("pid")],
    ];
  }

  /** The same words in one line for a shell. */
  commandLine(machine: LinuxMachine): string {
    return this.words(machine)
      .map((word) => `'${word}'`)
      .join(" ");
  }

  /** The guest in the QEMU of that name, which runs already. */
  guest(name: string): LinuxGuest {
    return new LinuxGuest(this, name);
  }

  /** A QEMU that was started with the words of `machine` and waits for a migration. */
  async startIncoming(machine: LinuxMachine): Promise<LinuxGuest> {
    const program = spawn([...this.words(machine), "-incoming", "defer"], { lifeMs: LIFE_MS });
    const guest = new LinuxGuest(this, machine.name, program);
    try {
      await waitUntil(async () => {
        if (!program.running) throw new Error(`QEMU did not start\n${program.stderr.tail}`);
        // The socket file appears at bind, a moment before connections are taken.
        const client = await QmpClient.connect(guest.monitor).catch(() => undefined);
        await client?.[Symbol.asyncDispose]();
        return client !== undefined;
      }, "QEMU's monitor");
    } catch (error) {
      await guest[Symbol.asyncDispose]();
      throw error;
    }
    return guest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#directory[Symbol.asyncDispose]();
  }
}

/** Starts a QEMU and waits until the Linux in it counts and takes commands. */
export async function bootLinux(place: LinuxPlace, machine: LinuxMachine): Promise<LinuxGuest> {
  await place.prepare();
  const program = spawn(place.words(machine), { lifeMs: LIFE_MS });
  const guest = new LinuxGuest(place, machine.name, program);
  try {
    await guest.waitForBoot();
    return guest;
  } catch (error) {
    await guest[Symbol.asyncDispose]();
    throw new Error(`Linux did not start: ${program.stderr.tail}\n${guest.printed()}`, {
      cause: error,
    });
  }
}

export class LinuxGuest implements AsyncDisposable {
  readonly #place: LinuxPlace;
  readonly #name: string;
  /** The QEMU, where it was started here. */
  readonly #program: RunningProgram | undefined;
  #shell: Socket | undefined;
  #said = "";

  constructor(place: LinuxPlace, name: string, program?: RunningProgram) {
    this.#place = place;
    this.#name = name;
    this.#program = program;
  }

  /** The path of QEMU's monitor. */
  get monitor(): string {
    return this.#place.file(`${this.#name}.qmp`);
  }

  /** What the guest has printed on its first serial port, in this QEMU. */
  printed(): string {
    const path = this.#place.file(`${this.#name}.count`);
    return existsSync(path) ? readFileSync(path, "latin1") : "";
  }

  /** Waits until Linux has started and counts; what its kernel prints before is no number. */
  async waitForBoot(): Promise<void> {
    await waitUntil(
      () => {
        if (this.#program?.running === false) throw new Error("QEMU has ended");
        return FIRST_NUMBER.test(this.printed());
      },
      "the first number of the guest",
      BOOT_LIMIT_MS,
    );
  }

  /** Waits until the guest has printed `count` more lines in this QEMU. */
  async waitForNumbers(count: number): Promise<void> {
    const lines = (): number => this.printed().split("\n").length;
    const before = lines();
    await waitUntil(
      () => {
        if (this.#program?.running === false) throw new Error("QEMU has ended");
        return lines() >= before + count;
      },
      `${count} numbers of the guest`,
      BOOT_LIMIT_MS,
    );
  }

  /** Runs one line of shell in the guest, one at a time; gives what it prints. Throws if it fails. */
  async ask(command: string, limitMs = COMMAND_LIMIT_MS): Promise<string> {
    const shell = this.#shell ?? (await this.#openShell());
    this.#said = "";
    shell.write(`${command}\n`);
    const what = `the guest's answer to: ${command}`;
    const answered = (): RegExpExecArray | undefined =>
      /^done (\d+)\n$/m.exec(this.#said) ?? undefined;
    const end = await waitUntil(answered, what, limitMs);
    const answer = this.#said.slice(0, end.index);
    if (end[1] !== "0") throw new Error(`${command}: status ${end[1]}\n${answer}`);
    return answer;
  }

  async #openShell(): Promise<Socket> {
    const shell = connect(this.#place.file(`${this.#name}.shell`));
    shell.setEncoding("latin1");
    shell.on("data", (text: string) => {
      this.#said += text;
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    shell.on("connect", resolve);
    shell.on("error", reject);
    await withDeadline(promise, "the guest's second serial port");
    this.#shell = shell;
    return shell;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#shell?.destroy();
    if (this.#program !== undefined) {
      await this.#program[Symbol.asyncDispose]();
      return;
    }
    const pidfile = this.#place.file(`${this.#name}.pid`);
    // QEMU takes the file away when it ends by itself.
    if (existsSync(pidfile)) killProcess(Number(readFileSync(pidfile, "utf8")));
  }
}

function killProcess(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}
