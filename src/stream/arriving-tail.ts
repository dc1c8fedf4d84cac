/**
 * What follows guest memory in a migration that completes in precopy (device-tail.ts), as it arrives
 * on a connection that stays open: a source with a return path does not close it, but waits to be
 * told what became of the guest. So the end is seen in the bytes themselves: they end, just here,
 * with EOF and a description whose length fits.
 *
 * Device state may hold anything, also bytes that look like such an end, and a read may end behind
 * them. They are taken for the end only if the description lists the very sections that stand before
 * it, each by its name, in its order and up to its footer, and no byte has come behind it. Device
 * state that would pass for that has to be made for it, by a guest that knows the machine around it
 * and the moment at which the link stalls; it would win that its own snapshot lacks the devices
 * behind.
 *
 * Bytes are looked at once, as they come. All of them are looked at again only where an end fits.
 */
import { VM_DESCRIPTION_BYTES_MAX, SECTION } from "./constants.ts";
import { areDescribed, splitDeviceSections } from "./device-sections.ts";
import {
  BETWEEN_BYTES,
  DEVICE_TAIL_BYTES_MAX,
  endsUndescribed,
  FOOTER_BYTES,
  isEofAndDescription,
  refuseLongTail,
  splitDeviceTail,
} from "./device-tail.ts";
import { byteString } from "./reader.ts";
import { refuse } from "./refuse.ts";
import { readDescribedDevices } from "./vm-description.ts";

/** Device state that is whole. */
export interface ArrivedDevices {
  /** FULL sections, one behind the other. */
  sections: Uint8Array;
  /** The description that followed, undefined where the machine suppresses it. */
  vmDescription: string | undefined;
}

/** Room at first: the state of a plain PC with its description. */
const FIRST_BYTES = 256 * 1024;
/** Most places that look like the end; one is, more only where somebody makes them. */
const ENDS_MAX = 8;
const EOF_AND_DESCRIPTION = Buffer.from([SECTION.eof, SECTION.vmDescription]);

/** A place that may be the end: where EOF stands, and where the stream then ends. */
interface PossibleEnd {
  at: number;
  end: number;
}

export class ArrivingTail {
  readonly #base: number;
  #buffer = Buffer.alloc(FIRST_BYTES);
  #length = 0;
  /** Up to here nothing else can be the beginning of the end. */
  #searched = 0;
  #ends: PossibleEnd[] = [];
  #endsSeen = 0;

  /** `base` is the stream offset of the first byte behind guest memory. */
  constructor(base: number) {
    this.#base = base;
  }

  /** Takes the next bytes, copied. @throws StreamError BAD_LENGTH for more than there can be. */
  append(bytes: Uint8Array): void {
    const length = this.#length + bytes.length;
    if (length > DEVICE_TAIL_BYTES_MAX) refuseLongTail(this.#base);
    if (length > this.#buffer.length) {
      const larger = Buffer.alloc(Math.max(length, 2 * this.#buffer.length));
      this.#buffer.copy(larger, 0, 0, this.#length);
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#length);
    this.#length = length;
    this.#search();
  }

  /** The device state, if the bytes that are there end with its description. */
  get devices(): ArrivedDevices | undefined {
    const bytes = this.#bytes;
    for (const { at, end } of this.#ends) {
      if (end !== this.#length) continue;
      const vmDescription = byteString(bytes, at + BETWEEN_BYTES, end - at - BETWEEN_BYTES);
      const described = readDescribedDevices(vmDescription);
      if (described === undefined || described.length === 0) continue;
      const sections = bytes.subarray(0, at);
      const stretches = splitDeviceSections(sections, described);
      if (!stretches.every(({ proven }) => proven)) continue;
      if (!areDescribed(stretches, described)) continue;
      return { sections: sections.slice(), vmDescription };
    }
    return undefined;
  }

  /** Whether the bytes that are there may be all, without a description: nobody can tell. */
  get mayBeWhole(): boolean {
    return endsUndescribed(this.#bytes);
  }

  /** The source has closed the connection, so that is all. @throws StreamError TRUNCATED. */
  close(): ArrivedDevices {
    const bytes = this.#bytes;
    const { devicesEnd, vmDescription } = splitDeviceTail(bytes, this.#base);
    return { sections: bytes.slice(0, devicesEnd), vmDescription: vmDescription?.json };
  }

  get #bytes(): Uint8Array {
    const { buffer, byteOffset } = this.#buffer;
    return new Uint8Array(buffer, byteOffset, this.#length);
  }

  /** Notes the places in what is new at which EOF and a description may begin. */
  #search(): void {
    this.#ends = this.#ends.filter(({ end }) => end >= this.#length);
    const bytes = this.#buffer;
    // What begins in the last bytes is looked at when all of its header is there.
    const limit = this.#length - BETWEEN_BYTES;
    let at = bytes.indexOf(EOF_AND_DESCRIPTION, this.#searched);
    for (; at >= 0 && at < limit; at = bytes.indexOf(EOF_AND_DESCRIPTION, at + 1)) this.#note(at);
    this.#searched = Math.max(this.#searched, limit);
  }

  #note(at: number): void {
    if (this.#buffer[at - FOOTER_BYTES] !== SECTION.footer) return;
    if (!isEofAndDescription(this.#buffer, at)) return;
    const length = this.#buffer.readUInt32BE(at + 2);
    const end = at + BETWEEN_BYTES + length;
    if (length > VM_DESCRIPTION_BYTES_MAX || end < this.#length) return;
    if (++this.#endsSeen > ENDS_MAX) {
      const problem = `The device state looks as if it ended in more than ${ENDS_MAX} places`;
      refuse("BAD_LENGTH", problem, this.#base + at);
    }
    this.#ends.push({ at, end });
  }
}
