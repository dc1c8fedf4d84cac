/** A pipe, or a socket that somebody else writes to, as a StreamReader: blocking, up to its end. */
import { SyscallError } from "../../syscalls/error.ts";
import { readInto } from "../../syscalls/io.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import { StreamReader } from "../stream/reader.ts";
import { PostcopyError, StreamError } from "../util/errors.ts";

const WINDOW_BYTES = 1024 * 1024;

/** Reads a blocking descriptor, which whoever made it closes. `what` names it in errors. */
export function pipeReader(fd: number, what: string): StreamReader {
  const { address, bytes } = mapScratch(WINDOW_BYTES);
  const read = (reader: StreamReader): number => {
    if (reader.end === reader.bytes.length) reader.compact();
    const got = readInto(fd, address + reader.end, reader.bytes.length - reader.end);
    if (got < 0) {
      const cause = new SyscallError("read", -got, what);
      throw new PostcopyError("CANNOT_READ", `${what} cannot be read`, { cause });
    }
    reader.end += got;
    return got;
  };
  const refill = (reader: StreamReader, least: number): void => {
    const target = reader.base + reader.end + least;
    if (reader.end + least > reader.bytes.length) reader.compact();
    while (reader.base + reader.end < target) {
      if (read(reader) > 0) continue;
      const where = `at byte ${reader.base + reader.end} of the stream`;
      const hint = "it was cut off while it was written or copied";
      throw new StreamError("TRUNCATED", `${what} ends too early (${where})`, { hint });
    }
  };
  return new StreamReader(bytes, 0, refill, { atEnd: (reader) => read(reader) === 0 });
}
