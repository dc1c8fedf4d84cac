/** A place for a unix socket that nobody but its owner can reach, whatever the umask. */
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UNIX_PATH_BYTES_MAX } from "../../syscalls/socket.ts";
import type { SocketAddress } from "../../syscalls/socket.ts";
import { UsageError } from "../util/errors.ts";
import { log } from "../util/log.ts";

/** What mkdtemp puts behind the prefix. */
const RANDOM_PART = "XXXXXX";
const SOCKET_NAME = "socket";

export class PrivateSocket {
  readonly address: Extract<SocketAddress, { family: "unix" }>;
  readonly #directory: string;

  /** Makes its directory, of which the name begins with `prefix`. @throws UsageError BAD_TMPDIR. */
  constructor(prefix: string) {
    checkPath(join(tmpdir(), prefix + RANDOM_PART, SOCKET_NAME));
    this.#directory = mkdtempSync(join(tmpdir(), prefix));
    chmodSync(this.#directory, 0o700);
    this.address = { family: "unix", path: join(this.#directory, SOCKET_NAME) };
    process.once("exit", this.#removeDirectory);
  }

  /** Removes it; the end of the process does, too. */
  remove(): void {
    process.off("exit", this.#removeDirectory);
    this.#removeDirectory();
  }

  readonly #removeDirectory = (): void => {
    try {
      rmSync(this.#directory, { recursive: true, force: true });
    } catch (error) {
      log.warn(`The directory ${this.#directory} could not be removed: ${String(error)}`);
    }
  };
}

/** Refuses what a unix socket cannot be named. */
function checkPath(path: string): void {
  if (Buffer.byteLength(path) <= UNIX_PATH_BYTES_MAX) return;
  throw new UsageError("BAD_TMPDIR", `${tmpdir()} is too long a path for a socket in it`, {
    hint: "set TMPDIR to a shorter one, such as /tmp",
  });
}
