/** A holder (holder.ts) as a keeper: each call is a connection. */
import { fstatSync } from "node:fs";
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { openPeerProcess, peerCredentials } from "../../syscalls/peer-process.ts";
import { openProcess } from "../../syscalls/pidfd.ts";
import { makeSocket, startConnect } from "../../syscalls/socket.ts";
import { KEEPER_LIMIT_MS, KeeperError, NobodyKeepsError } from "./keeper.ts";
import type { Keeper, KeeperLife, Kept } from "./keeper.ts";
import { awaitLine, sendLine } from "./line.ts";
import type { Line } from "./line.ts";

/** What connect(2) says where nobody listens, or not yet. */
const NOBODY: ReadonlySet<number> = new Set([ERRNO.ENOENT, ERRNO.ECONNREFUSED]);

/** The process that listens at the other end of a connection; -1 where it is not to be had. */
function openListeningProcess(fd: number): number {
  const processFd = openPeerProcess(fd);
  if (processFd >= 0) return processFd;
  const { pid } = peerCredentials(fd);
  // Before Linux 6.5 by its number: it answers on this very connection, so it has that still.
  return processFd === -ERRNO.ENOPROTOOPT && pid > 0 ? openProcess(pid) : -1;
}

function isSameFile(fd: number, other: number): boolean {
  const [one, two] = [fstatSync(fd), fstatSync(other)];
  return one.dev === two.dev && one.ino === two.ino;
}

function closeLife(life: KeeperLife): void {
  if (typeof life === "object") closeDescriptor(life.processFd);
}

/** What goes with a request. */
interface Request {
  descriptors?: readonly number[];
  /** Is given the connection. */
  look?: (fd: number) => void;
  signal?: AbortSignal | undefined;
}

export class HolderKeeper implements Keeper {
  readonly text: string;
  readonly #path: string;
  readonly #uid: number;

  /** `uid` is the user of this process: what is another's gets nothing from it. */
  constructor(path: string, uid: number) {
    this.#path = path;
    this.#uid = uid;
    this.text = `the holder at ${path}`;
  }

  async check(): Promise<void> {
    const { text, descriptors } = await this.#ask("give");
    descriptors.forEach(closeDescriptor);
    if (text === "given") return;
    throw new KeeperError(
      "NOT_KEPT",
      `The holder at ${this.#path} has somebody's already: ${text}`,
      {
        hint: "a VMM that a killed dest was filling is gone on with by the same command with --resume",
      },
    );
  }

  async keep(kept: readonly Kept[], signal?: AbortSignal): Promise<KeeperLife> {
    const names = kept.map(({ name }) => name);
    const descriptors = kept.map(({ fd }) => fd);
    const request = ["keep", ...names].join(" ");
    const { text, life } = await this.#askLiving(request, { descriptors, signal });
    try {
      if (text === "kept" || (await this.#hasAlready(kept, signal))) return life;
      const what = `The holder at ${this.#path} keeps nothing for us: ${text}`;
      throw new KeeperError("NOT_KEPT", what);
    } catch (error) {
      closeLife(life);
      throw error;
    }
  }

  /** It may have heard a call that was given up here, as it stood still for too long. */
  async #hasAlready(kept: readonly Kept[], signal: AbortSignal | undefined): Promise<boolean> {
    const { text, descriptors } = await this.#ask("give", { signal });
    try {
      const names = kept.map(({ name }) => name);
      if (text !== ["given", ...names].join(" ") || descriptors.length !== kept.length)
        return false;
      return kept.every(({ fd }, index) => isSameFile(fd, descriptors[index] ?? -1));
    } finally {
      descriptors.forEach(closeDescriptor);
    }
  }

  async takeBack(): Promise<{ kept: Kept[]; life: KeeperLife }> {
    const { text, descriptors, life } = await this.#askLiving("give");
    const [verb, ...names] = text.split(" ");
    if (verb === "given" && names.length > 0 && names.length === descriptors.length) {
      return { kept: names.map((name, index) => ({ name, fd: descriptors[index] ?? -1 })), life };
    }
    closeLife(life);
    descriptors.forEach(closeDescriptor);
    const what = names.length === 0 ? "has nothing" : `gives nothing back: ${text}`;
    throw new KeeperError("NOTHING_KEPT", `The holder at ${this.#path} ${what}`);
  }

  async release(): Promise<void> {
    const { text, descriptors } = await this.#ask("release");
    descriptors.forEach(closeDescriptor);
    if (text === "released") return;
    throw new KeeperError("NOT_RELEASED", `The holder at ${this.#path} holds on: ${text}`);
  }

  /** As `#ask`, and whose life what is held depends on. */
  async #askLiving(text: string, request: Request = {}): Promise<Line & { life: KeeperLife }> {
    let processFd = -1;
    try {
      const look = (fd: number): void => void (processFd = openListeningProcess(fd));
      const line = await this.#ask(text, { ...request, look });
      return { ...line, life: processFd < 0 ? "unseen" : { processFd } };
    } catch (error) {
      if (processFd >= 0) closeDescriptor(processFd);
      throw error;
    }
  }

  /** One request and its answer. */
  async #ask(text: string, { descriptors = [], look, signal }: Request = {}): Promise<Line> {
    const fd = makeSocket("unix");
    try {
      this.#connect(fd);
      look?.(fd);
      sendLine(fd, text, descriptors);
      return await awaitLine(fd, KEEPER_LIMIT_MS, signal);
    } catch (cause) {
      if (!(cause instanceof KeeperError) && !(cause instanceof SyscallError)) throw cause;
      const isNobody = cause instanceof SyscallError && NOBODY.has(cause.errno);
      const what = `The holder at ${this.#path} does not answer`;
      throw new (isNobody ? NobodyKeepsError : KeeperError)("NO_KEEPER", what, {
        cause,
        hint: `start one, as this user: postcopy hold --socket ${this.#path}`,
      });
    } finally {
      closeDescriptor(fd);
    }
  }

  #connect(fd: number): void {
    const result = startConnect(fd, { family: "unix", path: this.#path });
    if (result === -ERRNO.EAGAIN) throw new KeeperError("NO_KEEPER", "It is busy");
    if (result < 0) throw new SyscallError("connect", -result, this.#path);
    // Whoever can make a socket there would otherwise be given the guest's memory.
    const { uid, pid } = peerCredentials(fd);
    if (uid === this.#uid) return;
    throw new KeeperError("NO_KEEPER", `Process ${pid} listens there, which is of user ${uid}`);
  }
}
