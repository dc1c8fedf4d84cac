/** A holder (holder.ts) as a keeper: each call is a connection. */
import { ERRNO } from "../../syscalls/abi/errno.ts";
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { SyscallError } from "../../syscalls/error.ts";
import { openPeerProcess, peerCredentials } from "../../syscalls/peer-process.ts";
import { openProcess } from "../../syscalls/pidfd.ts";
import { makeSocket, startConnect } from "../../syscalls/socket.ts";
import { KEEPER_LIMIT_MS, KeeperError, NobodyKeepsError } from "./keeper.ts";
import type { Keeper, Kept } from "./keeper.ts";
import { receiveLine, sendLine } from "./line.ts";
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

  check(): void {
    const { text, descriptors } = this.#ask("give");
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

  keep(kept: readonly Kept[]): void {
    const names = kept.map(({ name }) => name);
    const descriptors = kept.map(({ fd }) => fd);
    const { text } = this.#ask(["keep", ...names].join(" "), descriptors);
    if (text === "kept") return;
    throw new KeeperError("NOT_KEPT", `The holder at ${this.#path} keeps nothing for us: ${text}`);
  }

  takeBack(): Kept[] {
    const { text, descriptors } = this.#ask("give");
    const [verb, ...names] = text.split(" ");
    if (verb === "given" && names.length > 0 && names.length === descriptors.length) {
      return names.map((name, index) => ({ name, fd: descriptors[index] ?? -1 }));
    }
    descriptors.forEach(closeDescriptor);
    const what = names.length === 0 ? "has nothing" : `gives nothing back: ${text}`;
    throw new KeeperError("NOTHING_KEPT", `The holder at ${this.#path} ${what}`);
  }

  holds(names: readonly string[]): boolean {
    try {
      const { text, descriptors } = this.#ask("give");
      descriptors.forEach(closeDescriptor);
      return text === ["given", ...names].join(" ") && descriptors.length === names.length;
    } catch (error) {
      if (error instanceof KeeperError) return false;
      throw error;
    }
  }

  openProcess(): number {
    let processFd = -1;
    try {
      const { descriptors } = this.#ask("give", [], (fd) => (processFd = openListeningProcess(fd)));
      descriptors.forEach(closeDescriptor);
      return processFd;
    } catch (error) {
      if (processFd >= 0) closeDescriptor(processFd);
      throw error;
    }
  }

  release(): void {
    const { text, descriptors } = this.#ask("release");
    descriptors.forEach(closeDescriptor);
    if (text === "released") return;
    throw new KeeperError("NOT_RELEASED", `The holder at ${this.#path} holds on: ${text}`);
  }

  /** One request and its answer; `look` is given the connection. */
  #ask(text: string, descriptors: readonly number[] = [], look?: (fd: number) => void): Line {
    const fd = makeSocket("unix");
    try {
      this.#connect(fd);
      look?.(fd);
      sendLine(fd, text, descriptors);
      return receiveLine(fd, KEEPER_LIMIT_MS);
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
