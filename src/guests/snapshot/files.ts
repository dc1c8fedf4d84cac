/**
 * The files of a snapshot that is being written: made, given their room on the disk, and made
 * durable. Every failure says which file of which directory it was.
 */
import {
  closeSync,
  constants,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { syncDirectory } from "../../util/durable.ts";
import { Reservation } from "./reservation.ts";
import { storeErrorOf } from "./store-error.ts";

const { O_CREAT, O_RDWR, O_WRONLY } = constants;
/** A guest's memory holds its secrets: nobody but the owner reads it. */
const MODE = 0o600;

export class SnapshotFiles {
  readonly directory: string;
  readonly #reservation: Reservation;

  constructor(directory: string) {
    this.directory = directory;
    this.#reservation = new Reservation(directory);
  }

  /** Makes a sparse file of `length` bytes, which nobody has made before; its descriptor. */
  create(name: string, length: number): number {
    const fd = this.#act(name, (path) => openSync(path, "wx+", MODE));
    this.#act(name, () => ftruncateSync(fd, length));
    return fd;
  }

  /** Opens a file of `length` bytes that an earlier process made. What is cut off is a hole. */
  reopen(name: string, length: number): number {
    const fd = this.#act(name, (path) => openSync(path, O_RDWR));
    this.#act(name, () => ftruncateSync(fd, length));
    return fd;
  }

  /**
   * Room for [offset, offset + length) of an open file, where `needed` bytes have none yet.
   * @throws PostcopyError NO_SPACE.
   */
  reserve(fd: number, name: string, offset: number, length: number, needed: number): void {
    this.#reservation.reserve(fd, name, offset, length, needed);
  }

  /** Room for a file of up to `length` bytes that `write` will write. */
  reserveFile(name: string, length: number): void {
    const fd = this.#act(name, (path) => openSync(path, O_WRONLY | O_CREAT, MODE));
    try {
      this.reserve(fd, name, 0, length, length);
    } finally {
      closeSync(fd);
    }
  }

  /** Writes a whole file into the room that is reserved for it, and makes it durable. */
  write(name: string, bytes: Uint8Array): void {
    this.#act(name, (path) => {
      // Not truncated before it is written: that would give the room away.
      const fd = openSync(path, O_WRONLY | O_CREAT, MODE);
      try {
        writeFileSync(fd, bytes);
        ftruncateSync(fd, bytes.length);
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
    });
  }

  /** Fills `bytes` from the start of an open file; what is behind its end stays as it is. */
  read(fd: number, name: string, bytes: Uint8Array): void {
    this.#act(name, () => {
      for (let done = 0; done < bytes.length;) {
        const got = readSync(fd, bytes, done, bytes.length - done, done);
        if (got === 0) return;
        done += got;
      }
    });
  }

  /** Removes a file that is of no more use, and does no harm where it cannot be. */
  remove(name: string): void {
    try {
      rmSync(join(this.directory, name), { force: true });
    } catch {
      // The snapshot is none the worse.
    }
  }

  /** Makes what was written through a descriptor durable. */
  sync(fd: number, name: string): void {
    this.#act(name, () => fsyncSync(fd));
  }

  /** Makes it durable, and closes it. */
  close(fd: number, name: string): void {
    this.sync(fd, name);
    closeSync(fd);
  }

  /** Gives a file its final name, once everything else of the directory is durable. */
  publish(from: string, name: string): void {
    this.#act(name, (path) => {
      syncDirectory(this.directory);
      renameSync(join(this.directory, from), path);
      syncDirectory(this.directory);
    });
  }

  #act<Result>(name: string, act: (path: string) => Result): Result {
    try {
      return act(join(this.directory, name));
    } catch (cause) {
      throw storeErrorOf(this.directory, name, cause);
    }
  }
}
