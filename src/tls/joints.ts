/** The joined connections of a bridge, until the last of them is over. */
import { Joint } from "./joint.ts";
import type { BridgeSocket } from "./joint.ts";

export class Joints {
  readonly #open = new Set<Joint>();
  #empty: () => void = () => {};

  get size(): number {
    return this.#open.size;
  }

  /** Joins two connections for as long as they last. */
  join(one: BridgeSocket, other: BridgeSocket): void {
    const joint: Joint = new Joint(one, other, () => {
      this.#open.delete(joint);
      if (this.#open.size === 0) this.#empty();
    });
    this.#open.add(joint);
  }

  /** Lets what is under way go out, for `timeoutMs` at most; what is left then is cut off. */
  async drain(timeoutMs: number): Promise<void> {
    if (this.#open.size === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#empty = resolve;
    const timer = setTimeout(resolve, timeoutMs);
    await promise;
    clearTimeout(timer);
    for (const joint of this.#open) joint.reset();
  }
}
