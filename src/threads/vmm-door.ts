/** Main's side of waiting for a VMM: the socket on which it hands its memory over. */
import { rmSync } from "node:fs";
import {
  closeDescriptor,
  makeEventDescriptor,
  raiseEventDescriptor,
} from "../../syscalls/descriptor.ts";
import { openListener } from "../channel/listen.ts";
import type { Vmm, VmmWait } from "../guests/uffd/vmm.ts";
import { Thread } from "./thread.ts";

export class VmmDoor {
  readonly #path: string;
  readonly #listenFd: number;
  readonly #stopFd = makeEventDescriptor();
  readonly #thread = new Thread<VmmWait, never, Vmm>("handover", () => {});

  /** Listens at `path`, for its owner alone. @throws PostcopyError CANNOT_LISTEN. */
  constructor(path: string) {
    this.#path = path;
    this.#listenFd = openListener([{ family: "unix", path }]).fd;
  }

  /**
   * Waits for the VMM, which has `timeoutMs` for its handover once it is there.
   * @throws ThreadError with the code of a HandoverError, or STOPPED.
   */
  async open(timeoutMs: number): Promise<Vmm> {
    return await this.#thread.run({ listenFd: this.#listenFd, stopFd: this.#stopFd, timeoutMs });
  }

  /** Nobody is waited for any more: `open` rejects. */
  stop(): void {
    raiseEventDescriptor(this.#stopFd);
  }

  /** Closes the socket and removes it: there is one VMM. After `open`. */
  close(): void {
    this.#thread.end();
    rmSync(this.#path, { force: true });
    closeDescriptor(this.#listenFd);
    closeDescriptor(this.#stopFd);
  }
}
