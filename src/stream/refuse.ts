/**
 * How every codec refuses bytes: one sentence that names what was wrong, the offset in the stream
 * where it stands, and a stable code. It has to be one function, so that no refusal lacks its offset.
 */
import { StreamError } from "../util/errors.ts";

/** Codes of the refusals of src/stream/. Scripts match them: they may be added to, not changed. */
export type RefusalCode =
  /** The first bytes are those of something other than a migration stream. */
  | "BAD_MAGIC"
  /** A version field has a value that this program (and QEMU) does not read. */
  | "BAD_VERSION"
  /** The configuration section holds something unknown, or something twice. */
  | "BAD_CONFIGURATION"
  /** A byte that begins no section, or a section that cannot stand where it was found. */
  | "UNKNOWN_SECTION"
  /** A section is not followed by its own footer: reader and writer disagree about its body. */
  | "BAD_FOOTER"
  | "UNKNOWN_COMMAND"
  /** A number that is no message of the return path. */
  | "UNKNOWN_MESSAGE"
  /** A length field that contradicts what it is the length of, or exceeds a named limit. */
  | "BAD_LENGTH"
  /** A field outside the range it can have. */
  | "BAD_VALUE"
  /** A combination of RAM record flags that has no meaning. */
  | "BAD_FLAGS"
  /** Encoded page data that does not decode to a page. */
  | "BAD_PAGE"
  /** A package that is not LISTEN, device state, PINGs, RUN. */
  | "BAD_PACKAGE"
  /** What a source may send, and what this program does not take. */
  | "UNSUPPORTED"
  /** The stream ends before it is complete. */
  | "TRUNCATED";

/** Throws a StreamError; `offset` counts from the first byte of the stream that is being read. */
export function refuse(code: RefusalCode, sentence: string, offset: number, hint?: string): never {
  const details = hint === undefined ? {} : { hint };
  throw new StreamError(code, `${sentence} (at byte ${offset} of the stream)`, details);
}

/** A number as people compare it with a specification: 0x1f. */
export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
