/**
 * systemd's descriptor store as a keeper: sd_notify(3), sd_pid_notify_with_fds(3) (FDSTORE=1) and
 * sd_listen_fds(3). What a service has stored it is given again when it is started anew, as long as
 * its unit has FileDescriptorStoreMax=, and NotifyAccess= lets it speak.
 */
import {
  closeDescriptor,
  POLL,
  setCloseOnExec,
  setNonBlocking,
} from "../../syscalls/descriptor.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { makeDatagramSocket, makeSocketPair, startConnect } from "../../syscalls/socket.ts";
import { KEEPER_LIMIT_MS, KeeperError } from "./keeper.ts";
import type { Keeper, KeeperLife, Kept } from "./keeper.ts";
import { sendText } from "./line.ts";
import { becomesReady } from "./readiness.ts";

/** Descriptors that a service is given begin here (SD_LISTEN_FDS_START). */
const FIRST_DESCRIPTOR = 3;
/** Those that are given for something else have other names. */
const NAME_PREFIX = "postcopy-";
const UNIT_HINT =
  "run it as a service whose unit has Type=notify or NotifyAccess=main, and FileDescriptorStoreMax=8";

/** What of the environment says how to speak with the service manager (environ(7)). */
export type Environment = Record<string, string | undefined>;

export class SystemdKeeper implements Keeper {
  readonly text = "systemd's descriptor store";
  readonly #environment: Environment;
  readonly #pid: number;

  /** `environment` is that of this process, which is `pid`; what is taken back is removed of it. */
  constructor(environment: Environment, pid: number) {
    this.#environment = environment;
    this.#pid = pid;
  }

  check(count: number): Promise<void> {
    return Promise.try(() => {
      this.#where();
      const { FDSTORE: most } = this.#environment;
      if (most === undefined || Number(most) >= count) return;
      const what = `systemd keeps ${most} descriptors of this service, ${count} are needed`;
      throw new KeeperError("NOT_KEPT", what, { hint: UNIT_HINT });
    });
  }

  async keep(kept: readonly Kept[]): Promise<KeeperLife> {
    // Without FDPOLL=0 systemd drops what polls as an error or a hang-up.
    await this.#tell(({ name }) => `FDSTORE=1\nFDNAME=${NAME_PREFIX}${name}\nFDPOLL=0`, kept);
    return "outlives";
  }

  takeBack(): Promise<{ kept: Kept[]; life: KeeperLife }> {
    return Promise.try(() => ({ kept: this.#takeGiven(), life: "outlives" as const }));
  }

  #takeGiven(): Kept[] {
    const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: names = "" } = this.#environment;
    for (const name of ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]) {
      delete this.#environment[name];
    }
    if (Number(pid) !== this.#pid || !/^\d{1,4}$/.test(count ?? "")) {
      const what = "systemd gives nothing back to this process";
      throw new KeeperError("NOTHING_KEPT", what, { hint: UNIT_HINT });
    }
    const given = names.split(":");
    const kept: Kept[] = [];
    for (let index = 0; index < Number(count); index++) {
      const fd = FIRST_DESCRIPTOR + index;
      setCloseOnExec(fd);
      const name = given[index] ?? "";
      if (name.startsWith(NAME_PREFIX)) kept.push({ name: name.slice(NAME_PREFIX.length), fd });
    }
    if (kept.length > 0) return kept;
    throw new KeeperError("NOTHING_KEPT", "systemd gives back nothing that was kept for a guest");
  }

  async release(names: readonly string[]): Promise<void> {
    const stored = names.map((name) => ({ name, fd: -1 }));
    await this.#tell(({ name }) => `FDSTOREREMOVE=1\nFDNAME=${NAME_PREFIX}${name}`, stored);
  }

  /** Sends a message for each, and waits until the service manager has read all of them. */
  async #tell(message: (kept: Kept) => string, all: readonly Kept[]): Promise<void> {
    const where = this.#where();
    const socket = makeDatagramSocket();
    const deadline = performance.now() + KEEPER_LIMIT_MS;
    try {
      setNonBlocking(socket, true);
      const result = startConnect(socket, { family: "unix", path: where.replace(/^@/, "\0") });
      if (result < 0) throw new SyscallError("connect", -result, where);
      for (const kept of all) {
        await send(socket, message(kept), kept.fd < 0 ? [] : [kept.fd], deadline);
      }
      await passBarrier(socket, deadline);
    } catch (cause) {
      if (!(cause instanceof SyscallError)) throw cause;
      const what = "systemd cannot be spoken to";
      throw new KeeperError("NO_KEEPER", what, { cause, hint: UNIT_HINT });
    } finally {
      closeDescriptor(socket);
    }
  }

  #where(): string {
    const { NOTIFY_SOCKET: where } = this.#environment;
    if (where !== undefined && /^[/@]./.test(where)) return where;
    const is = where === undefined ? "is not set" : `is ${where}, which is no unix socket`;
    const what = `systemd cannot be spoken to: the variable NOTIFY_SOCKET ${is}`;
    throw new KeeperError("NO_KEEPER", what, { hint: UNIT_HINT });
  }
}

/** Sends a datagram, which a service manager that reads none has no room for. */
async function send(
  socket: number,
  text: string,
  descriptors: readonly number[],
  deadline: number,
): Promise<void> {
  if (!(await becomesReady(socket, POLL.POLLOUT, deadline))) throw notInTime();
  sendText(socket, text, descriptors);
}

/**
 * sd_notify_barrier(3): a descriptor is sent, which the service manager closes (systemd 246) when it
 * has handled all that was sent before.
 */
async function passBarrier(socket: number, deadline: number): Promise<void> {
  const [near, far] = makeSocketPair();
  try {
    try {
      await send(socket, "BARRIER=1", [far], deadline);
    } finally {
      closeDescriptor(far);
    }
    if (!(await becomesReady(near, POLL.POLLIN, deadline))) throw notInTime();
  } finally {
    closeDescriptor(near);
  }
}

function notInTime(): KeeperError {
  const what = "systemd did not say in time that it keeps the descriptors";
  return new KeeperError("NO_KEEPER", what, { hint: "this takes systemd 246 or newer" });
}
