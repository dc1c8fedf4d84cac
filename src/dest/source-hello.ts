/**
 * What a source says of itself in the values of its PINGs (stream/hello.ts), and what it is answered. A
 * QEMU says nothing.
 */
import { furtherPushChannels, withFurtherPushChannels } from "../stream/further-channel.ts";
import { FEATURE, answerValue, readHello } from "../stream/hello.ts";
import type { Hello } from "../stream/hello.ts";
import { ToldIdentity } from "../stream/identity.ts";
import { StreamError } from "../util/errors.ts";
import { WORD } from "./shared.ts";

export class SourceHello {
  /** It has said hello: it is this program. */
  isOurs = false;
  /** What it has chosen to be in force (FEATURE). */
  chosen = 0;
  /** Which guest it is, as far as that has come. */
  told = new ToldIdentity();
  readonly #control: Int32Array<SharedArrayBuffer>;
  #hasChosen = false;
  /** What this end can do (FEATURE). */
  #features: number;
  /** Halves of the urgent channel's token, as far as they have come. */
  #tokenHigh: number | undefined;
  #tokenLow: number | undefined;

  /** `control` are the words (WORD) that say to the other threads which further channels may come. */
  constructor(features: number, control: Int32Array<SharedArrayBuffer>) {
    this.#features = features;
    this.#control = control;
  }

  /** The value of the PONG that answers its hello. */
  get answer(): number {
    return answerValue(this.#features);
  }

  /** Whether it wants to be told when the guest runs. */
  get awaitsRunning(): boolean {
    return (this.chosen & FEATURE.running) !== 0;
  }

  /** Takes the value of a PING: what it was, or undefined for that of a QEMU. @throws StreamError. */
  take(value: number): Hello["kind"] | undefined {
    const hello = readHello(value);
    this.told.take(value);
    if (hello === undefined) return undefined;
    const { kind, bits } = hello;
    this.isOurs = true;
    if (kind === "token high") this.#tokenHigh = bits;
    if (kind === "token low") this.#tokenLow = bits;
    if (kind === "chosen") this.#choose(bits);
    return kind;
  }

  /** What was chosen is in force from here on: other threads learn which channels may come. */
  enforce(): { urgentChannel: boolean; pushChannels: number } {
    if ((this.chosen & FEATURE.urgentChannel) === 0) {
      return { urgentChannel: false, pushChannels: 1 };
    }
    if (this.#tokenHigh === undefined || this.#tokenLow === undefined) {
      throw new StreamError("UNEXPECTED", "The source chose an urgent channel without a token");
    }
    const channels = furtherPushChannels(this.chosen);
    Atomics.store(this.#control, WORD.urgentToken, (this.#tokenHigh << 16) | this.#tokenLow);
    Atomics.store(this.#control, WORD.urgentChosen, 1);
    Atomics.store(this.#control, WORD.pushChannels, 1 + channels);
    Atomics.store(this.#control, WORD.pushAwaited, channels);
    return { urgentChannel: true, pushChannels: 1 + channels };
  }

  /** Another source begins, which is not to have the urgent channel of the one before. */
  startOver(): void {
    this.#features = withFurtherPushChannels(this.#features & ~FEATURE.urgentChannel, 0);
    this.isOurs = false;
    this.chosen = 0;
    this.told = new ToldIdentity();
    this.#hasChosen = false;
    // Nor its push channels, none of which has placed a page before LISTEN.
    Atomics.store(this.#control, WORD.pushOver, 1);
  }

  #choose(features: number): void {
    const tooMany = furtherPushChannels(features) > furtherPushChannels(this.#features);
    const isUrgent = (features & ~this.#features & FEATURE.urgentChannel) !== 0;
    if (tooMany || isUrgent || this.#hasChosen) {
      throw new StreamError("UNEXPECTED", "The source chose what it was not offered, or twice");
    }
    this.#hasChosen = true;
    this.chosen = features;
  }
}
