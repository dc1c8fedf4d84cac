/**
 * systemd's descriptor store as a keeper: sd_notify(3), sd_pid_notify_with_fds(3) (FDSTORE=1) and
 * sd_listen_fds(3). What a service has stored it is given again when it is started anew, as long as
 * its unit has FileDescriptorStoreMax=, and NotifyAccess= lets it speak.
 */
import { closeDescriptor, POLL, PollSet, setCloseOnExec } from "../../syscalls/descriptor.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { makeDatagramSocket, makeSocketPair, startConnect } from "../../syscalls/socket.ts";
import { KEEPER_LIMIT_MS, KeeperError } from "./keeper.ts";
import type { Keeper, Kept } from "./keeper.ts";
import { sendText } from "./line.ts";

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

  check(count: number): void {
    this.#where();
    const { FDSTORE: most } = this.#environment;
    if (most === undefined || Number(most) >= count) return;
    const what = `systemd keeps ${most} descriptors of this service, ${count} are needed`;
    throw new KeeperError("NOT_KEPT", what, { hint: UNIT_HINT });
  }

  keep(kept: readonly Kept[]): void {
    // Without FDPOLL=0 systemd drops what polls as an error or a hang-up.
    this.#tell(({ name }) => `FDSTORE=1\nFDNAME=${NAME_PREFIX}${name}\nFDPOLL=0`, kept);
  }

  takeBack(): Kept[] {
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

  openProcess(): number {
    return -1;
  }

  /** It gives back what it has to a service that it starts, and says nothing to one that runs. */
  holds(): boolean {
    return true;
  }

  release(names: readonly string[]): void {
    const stored = names.map((name) => ({ name, fd: -1 }));
    this.#tell(({ name }) => `FDSTOREREMOVE=1\nFDNAME=${NAME_PREFIX}${name}`, stored);
  }

  /** Sends a message for each, and waits until the service manager has read all of them. */
  #tell(message: (kept: Kept) => string, all: readonly Kept[]): void {
    const where = this.#where();
    const socket = makeDatagramSocket();
    try {
      const result = startConnect(socket, { family: "unix", path: where.replace(/^@/, "\0") });
      if (result < 0) throw new SyscallError("connect", -result, where);
      for (const kept of all) sendText(socket, message(kept), kept.fd < 0 ? [] : [kept.fd]);
      awaitBarrier(socket);
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

/**
 * sd_notify_barrier(3): a descriptor is sent, which the service manager closes (systemd 246) when it
 * has handled all that was sent before.
 */
function awaitBarrier(socket: number): void {
  const [near, far] = makeSocketPair();
  try {
    sendText(socket, "BARRIER=1", [far]);
  } finally {
    closeDescriptor(far);
  }
  const poll = new PollSet();
  poll.add(near, POLL.POLLIN);
  const closed = poll.wait(KEEPER_LIMIT_MS) > 0;
  closeDescriptor(near);
  if (closed) return;
  throw new KeeperError("NO_KEEPER", "systemd did not say in time that it keeps the descriptors", {
    hint: "this takes systemd 246 or newer",
  });
}
