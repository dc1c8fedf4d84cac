/**
 * A compressed file as a descriptor from which the unpacked bytes are read, by a thread that may
 * block. What the runtime unpacks itself needs nothing of the host; the rest goes through the
 * program that packed it. Nothing is held but what is under way.
 */
import { closeSync, createReadStream, createWriteStream, openSync, readSync } from "node:fs";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { closeDescriptor } from "../../syscalls/descriptor.ts";
import { makeSocketPair } from "../../syscalls/socket.ts";
import type { Compression } from "../stream/saved-file.ts";
import { HostError, StreamError } from "../util/errors.ts";

/** An unpacking under way. */
export interface Unpacking extends Disposable {
  /** Blocking; at its end all is read, or it failed: `done` says which. */
  readonly fd: number;
  /** Resolves when all was unpacked and is whole. @throws StreamError DAMAGED_FILE. */
  readonly done: Promise<void>;
}

/** The largest step in which the start of a file is passed over. */
const STEP_BYTES = 64 * 1024;

const BUILT_IN: Partial<Record<Compression, () => Duplex>> = {
  gzip: () => createGunzip(),
  zstd: () => createZstdDecompress(),
};

/** Programs, and the Debian packages that bring them. */
const PROGRAMS: Partial<Record<Compression, { program: string; package: string }>> = {
  bzip2: { program: "bzip2", package: "bzip2" },
  xz: { program: "xz", package: "xz-utils" },
  lzop: { program: "lzop", package: "lzop" },
};

/** Starts unpacking a file from the byte `at` on. @throws HostError NO_PROGRAM. */
export function unpack(path: string, at: number, compression: Compression): Unpacking {
  const make = BUILT_IN[compression];
  const program = make === undefined ? findProgram(path, compression) : undefined;
  const [fd, writeFd] = makeSocketPair();
  const work =
    make === undefined
      ? runProgram(program ?? "", path, at, writeFd)
      : pipeline(
          createReadStream(path, { start: at }),
          make(),
          createWriteStream("", { fd: writeFd }),
        );
  const done = work.catch((cause: unknown) => {
    const message = `${path} cannot be unpacked (${compression})`;
    const hint = "it is damaged, or was cut off while it was written or copied";
    throw new StreamError("DAMAGED_FILE", message, { cause, hint });
  });
  // It is awaited once all has been read; until then a failure is nobody's.
  done.catch(() => {});
  return { fd, done, [Symbol.dispose]: () => closeDescriptor(fd) };
}

function findProgram(path: string, compression: Compression): string {
  const { program, package: name } = PROGRAMS[compression] ?? { program: "", package: "" };
  const found = Bun.which(program);
  if (found !== null) return found;
  throw new HostError("NO_PROGRAM", `${path} is compressed by ${program}, which is not here`, {
    hint: `install it: apt install ${name}`,
  });
}

/** Has a program unpack the file to `writeFd`; rejects with its own words where it fails. */
async function runProgram(
  program: string,
  path: string,
  at: number,
  writeFd: number,
): Promise<void> {
  let input = -1;
  let isOurs = true;
  try {
    input = openSync(path, "r");
    // The program reads on from where the descriptor stands.
    const step = new Uint8Array(STEP_BYTES);
    for (let rest = at; rest > 0;)
      rest -= readSync(input, step, 0, Math.min(rest, STEP_BYTES), null);
    const child = Bun.spawn([program, "-dc"], { stdin: input, stdout: writeFd, stderr: "pipe" });
    // From here on only the program holds it, so that its end is the end of what is read.
    closeDescriptor(writeFd);
    isOurs = false;
    const [words, exitCode] = await Promise.all([new Response(child.stderr).text(), child.exited]);
    if (exitCode !== 0) throw new Error(words.trim() || `${program} ended with ${exitCode}`);
  } finally {
    // Or whoever reads would wait for ever.
    if (isOurs) closeDescriptor(writeFd);
    if (input >= 0) closeSync(input);
  }
}
