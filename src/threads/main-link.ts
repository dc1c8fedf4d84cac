/**
 * The main connection of a migration at the destination, as the main thread knows it: who is there, and the
 * last words that are said to him where no other thread can say them.
 */
import { Channel } from "../channel/channel.ts";
import { tellRefusal } from "../dest/refusal.ts";
import { ReturnPath } from "../dest/return-path.ts";
import { WORD } from "../dest/shared.ts";
import type { DestShared } from "../dest/shared.ts";
import { SHUT_STATUS, writeReturnPathMessage } from "../stream/return-path.ts";
import { StreamWriter } from "../stream/writer.ts";

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
   * Tells the source that its guest ran here, in a VMM that is no more, so that it does not come back;
   * after `run`. A thread that has ended by itself may have left the return path locked.
   */
  tellGone(): void {
    const { control, returnPathLock } = this.#shared;
    if (this.fd < 0 || Atomics.load(control, WORD.returnPathOpen) === 0) return;
    if (!returnPathLock.tryLock()) return;
    const writer = new StreamWriter();
    writeReturnPathMessage(writer, { kind: "shut", status: SHUT_STATUS.guestGone });
    try {
      this.#open().write(writer.bytes);
    } catch {
      // It is not there, or takes nothing.
    } finally {
      returnPathLock.unlock();
    }
  }

  #open(): Channel {
    return new Channel({ fd: this.fd, stopFd: this.#stopFd, peer: this.peer, bufferBytes: 0 });
  }
}
