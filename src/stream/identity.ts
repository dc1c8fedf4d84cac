/**
 * Which guest it is, so that no recovery mixes two. A source of ours tells it to a destination of ours
 * in the values of PINGs, as the hello is told (hello.ts), in eight parts of 16 bits:
 *
 *     on the first link, once both have FEATURE.identity, before it is chosen
 *         source: PING part 0 … PING part 7       echoed, and kept
 *     on a link that goes on after one that broke, before RESUME
 *         source: PING part 0 … PING part 7       the answer to the last says what is known here:
 *                                                 `same`, `other`, or the echo where nothing is
 *
 * A QEMU echoes them all, and so does a destination of ours that does not know them.
 */
import { createHash, randomBytes } from "node:crypto";

/** What tells a guest from all others: 128 bits, as 32 lower-case hexadecimal digits. */
export type GuestIdentity = string;

/** Bytes of an identity, and what it looks like. */
export const IDENTITY_BYTES = 16;
export const IDENTITY_TEXT = /^[0-9a-f]{32}$/;

const PARTS = 8;
const DIGITS_A_PART = 4;
/** Of part 0; the others follow. */
const PART = 0x5050_0000;
const PART_STEP = 0x1_0000;

/** What to know of files where a guest is refused as another one: most likely they were copied. */
export const SAME_FILES =
  "files without checksums (firecracker:, mapped-ram) are another guest when they were copied without " +
  "the time of their last change: copy them by cp -a or rsync -aS";

/** PONG values, in place of the echo of the last part. */
export const PONG_SAME_GUEST = 0x504b_0001;
export const PONG_OTHER_GUEST = 0x504b_0002;

/** That of a guest which lives in this process, and in no other one. */
export function newIdentity(): GuestIdentity {
  return randomBytes(IDENTITY_BYTES).toString("hex");
}

/** That of a guest which lies in files: of `text`, which stays the same as long as they do. */
export function identityOfText(text: string): GuestIdentity {
  const digest = createHash("sha256").update(text).digest();
  return digest.toString("hex", 0, IDENTITY_BYTES);
}

/** The values of the PINGs that tell an identity, in their order. */
export function identityPings(identity: GuestIdentity): number[] {
  return Array.from({ length: PARTS }, (_, part) => {
    const digits = identity.slice(part * DIGITS_A_PART, (part + 1) * DIGITS_A_PART);
    return PART + part * PART_STEP + Number.parseInt(digits, 16);
  });
}

/** Whether a PING or PONG has the last part, at which an identity is complete. */
export function isLastPart(value: number): boolean {
  return partOf(value) === PARTS - 1;
}

/** Which part a value has; undefined for any other value. */
function partOf(value: number): number | undefined {
  const part = Math.floor((value - PART) / PART_STEP);
  return part >= 0 && part < PARTS ? part : undefined;
}

/** An identity as it is being told. */
export class ToldIdentity {
  readonly #parts: (string | undefined)[] = Array.from({ length: PARTS }, () => undefined);

  /** Takes the part that a PING may have. */
  take(value: number): void {
    const part = partOf(value);
    if (part === undefined) return;
    this.#parts[part] = (value % PART_STEP).toString(16).padStart(DIGITS_A_PART, "0");
  }

  /** Undefined as long as it is not whole. */
  get identity(): GuestIdentity | undefined {
    return this.#parts.includes(undefined) ? undefined : this.#parts.join("");
  }
}
