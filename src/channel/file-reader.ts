/**
 * A file as a StreamReader: read with pread(2) in windows of a fixed size, whatever the size of the
 * file. Offsets of the reader are those of the file, also where the stream begins within it.
 */
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import { SyscallError } from "../../syscalls/error.ts";
import { readAt } from "../../syscalls/io.ts";
import { mapScratch } from "../../syscalls/memory.ts";
import { StreamReader } from "../stream/reader.ts";
import { PostcopyError, StreamError, UsageError } from "../util/errors.ts";

/** Bytes read at once, and kept. */
const WINDOW_BYTES = 1024 * 1024;

/** An open file that a stream is read from. */
export class FileReader implements Disposable {
  readonly path: string;
  readonly fd: number;
  /** Bytes of the file when it was opened: what is written behind them later is not read. */
  readonly size: number;
  readonly reader: StreamReader;

  /** Opens it for reading from `start` on. @throws UsageError NO_FILE. */
  constructor(path: string, start = 0) {
    this.path = path;
    this.fd = openFile(path);
    this.size = fstatSync(this.fd).size;
    const { address, bytes } = mapScratch(WINDOW_BYTES);
    const refill = (reader: StreamReader, least: number): void => {
      if (reader.end + least > bytes.length) reader.compact();
      this.#fill(reader, address, least);
    };
    this.reader = new StreamReader(bytes, 0, refill, {
      seeks: true,
      atEnd: (reader) => {
        if (reader.offset >= this.size) return true;
        reader.ensure(1);
        return false;
      },
    });
    this.reader.base = start;
  }

  #fill(reader: StreamReader, address: number, least: number): void {
    for (let missing = least; missing > 0;) {
      const at = reader.base + reader.end;
      const room = Math.min(reader.bytes.length - reader.end, this.size - at);
      const got = room > 0 ? readAt(this.fd, address + reader.end, room, at) : 0;
      if (got < 0) {
        const cause = new SyscallError("pread", -got, `${room} bytes at ${at}`);
        throw new PostcopyError("CANNOT_READ", `${this.path} cannot be read`, { cause });
      }
      if (got === 0) {
        const where = `at byte ${Math.min(at, this.size)} of the stream`;
        const hint = "it was cut off while it was written or copied";
        throw new StreamError("TRUNCATED", `The file ends too early (${where})`, { hint });
      }
      reader.end += got;
      missing -= got;
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

function openFile(path: string): number {
  try {
    // A pipe without a writer would be waited for, for ever.
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    if (fstatSync(fd).isFile()) return fd;
    closeSync(fd);
  } catch (cause) {
    throw new UsageError("NO_FILE", `${path} cannot be opened`, { cause });
  }
  throw new UsageError("NO_FILE", `${path} is not a file`, {
    hint: "a stream that arrives is taken by postcopy dest",
  });
}
