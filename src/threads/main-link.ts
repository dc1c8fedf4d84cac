/**
 * The main connection of a migration at the destination, as the main thread knows it: who is there, and the
 * last words that are said to him where no other thread can say them.
 */
import {
  closeDescriptor,
  makeEventDescriptor,
  raiseEventDescriptor,
} from "../../syscalls/descriptor.ts";
import { Channel } from "../channel/channel.ts";
import { tellRefusal } from "../dest/refusal.ts";
import { ReturnPath } from "../dest/return-path.ts";
import { WORD } from "../dest/shared.ts";
import type { DestShared } from "../dest/shared.ts";
import { SHUT_STATUS, writeReturnPathMessage } from "../stream/return-path.ts";
import { StreamWriter } from "../stream/writer.ts";

/** How long a thread that is about to end may still be at the return path. */
const LOCK_PATIENCE_MS = 100;

export class MainLink {
  /** -1 while nobody has come. */
  fd = -1;
  peer = "the source";
  readonly #shared: DestShared;
  readonly #stopFd: number;

  /** `stopFd` ends what waits to write. */
  constructor(shared: DestShared, stopFd: number) {
    this.#shared = shared;
    this.#stopFd = stopFd;
  }

  /**
   * Tells the source that the guest was refused, for an incoming thread that cannot, as it waits for a page
   * that nobody will bring.
   */
  tellRefusal(): void {
    if (this.fd < 0) return;
    tellRefusal(this.#shared, new ReturnPath(this.#open(), this.#shared.returnPathLock));
  }

  /**
   * Tells a source of ours that its guest ran here and is no more, so that it does not come back: once,
   * before any thread closes anything of the link, or when all have ended. One that has ended by itself may
   * have left the return path locked.
   */
  tellGone(): void {
    const { control, returnPathLock } = this.#shared;
    if (this.fd < 0 || Atomics.load(control, WORD.returnPathOpen) === 0) return;
    const deadline = performance.now() + LOCK_PATIENCE_MS;
    while (!returnPathLock.tryLock()) if (performance.now() > deadline) return;
    let raised = -1;
    try {
      const writer = new StreamWriter();
      writeReturnPathMessage(writer, { kind: "shut", status: SHUT_STATUS.guestGone });
      // Nobody is waited for.
      raised = makeEventDescriptor();
      raiseEventDescriptor(raised);
      this.#open(raised).write(writer.bytes);
      Atomics.store(control, WORD.returnPathOpen, 0);
    } catch {
      // It is not there, or takes nothing; or this process has no descriptor left to tell it with.
    } finally {
      returnPathLock.unlock();
      if (raised >= 0) closeDescriptor(raised);
    }
  }

  #open(stopFd = this.#stopFd): Channel {
    return new Channel({ fd: this.fd, stopFd, peer: this.peer, bufferBytes: 0 });
  }
}
