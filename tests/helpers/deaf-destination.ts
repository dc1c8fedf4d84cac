/**
 * A destination that takes a connection and never reads from it: whatever does not fit into the
 * socket (208 KiB, by net.core.wmem_default) holds the source up. It is made of system calls, as a
 * socket of the runtime reads ahead.
 */
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { writeFrom } from "../../syscalls/io.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import { acceptConnection, bindAndListen, makeSocket } from "../../syscalls/socket.ts";
import { writeReturnPathMessage } from "../../src/stream/return-path.ts";
import { waitUntil } from "./deadline.ts";
import { bytesOf } from "./hand-made-stream.ts";
import { HELLO } from "./stuck-source.ts";

export class DeafDestination implements Disposable {
  /** The address as a PEER word. */
  readonly peer: string;
  readonly #listenFd: number;
  #fd = -1;

  /** Listens on the path of a unix socket. */
  constructor(path: string) {
    this.peer = `unix:${path}`;
    this.#listenFd = makeSocket("unix");
    bindAndListen(this.#listenFd, { family: "unix", path }, 1);
  }

  /** Waits for the source. */
  async accept(): Promise<void> {
    const accepted = (): number | undefined => {
      const fd = acceptConnection(this.#listenFd);
      return fd < 0 ? undefined : fd;
    };
    this.#fd = await waitUntil(accepted, "a connection from the source");
  }

  /** Answers the hello as a QEMU does; that the question has not been read is nobody's business. */
  answerAsQemu(): void {
    const bytes = bytesOf((writer) =>
      writeReturnPathMessage(writer, { kind: "pong", value: HELLO }),
    );
    const scratch = mapScratch(bytes.length);
    scratch.bytes.set(bytes);
    const written = writeFrom(this.#fd, scratch.address, bytes.length);
    if (written !== bytes.length) throw new Error(`writing the answer gave ${written}`);
  }

  /** Hangs up. */
  hangUp(): void {
    if (this.#fd >= 0) closeDescriptor(this.#fd);
    this.#fd = -1;
  }

  [Symbol.dispose](): void {
    this.hangUp();
    closeDescriptor(this.#listenFd);
  }
}
