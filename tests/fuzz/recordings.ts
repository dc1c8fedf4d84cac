/**
 * Recordings of every kind, made once and kept in .cache/fuzz: what QEMU sends holds QEMU's own
 * tables, so that none of it is checked in. Without them (and in CI) they are made in some seconds.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { QEMU_VERSIONS } from "../helpers/qemu-versions.ts";
import type { QemuVersion } from "../helpers/qemu-versions.ts";
import { PROJECT_ROOT } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { recordBack } from "./record-back.ts";
import { recordOwn, recordOwnWhole, recordPushed } from "./record-own.ts";
import { recordQemu } from "./record-qemu.ts";
import { keepStream } from "./targets/dest.ts";

/** Raised when what is recorded changes. */
const FORMAT = 4;
const COMPLETE = "complete";
const TRIES = 3;

export const RECORDINGS = join(PROJECT_ROOT, ".cache", "fuzz");

/** Makes the recordings unless they are there; the directory that they are in. */
export async function recordAll(): Promise<string> {
  const marker = join(RECORDINGS, COMPLETE);
  if (existsSync(marker) && readFileSync(marker, "utf8") === `${FORMAT}`) return RECORDINGS;
  rmSync(RECORDINGS, { recursive: true, force: true });
  mkdirSync(RECORDINGS, { recursive: true });
  await Promise.all([
    keepAll(recordOwnWhole),
    keepAll(recordOwn),
    keepAll(recordPushed),
    ...QEMU_VERSIONS.map(recordVersion),
  ]);
  writeFileSync(marker, `${FORMAT}`);
  return RECORDINGS;
}

async function recordVersion(version: QemuVersion): Promise<void> {
  await keepAll(async () => await recordQemu(version));
  await keepAll(async () => {
    await using directory = new TemporaryDirectory("kept");
    const stream = readFileSync(join(RECORDINGS, `stream.${version}.postcopy.bin`));
    return await recordBack(version, keepStream(new Uint8Array(stream), directory.path));
  });
}

/** Keeps what `record` gives. On a busy machine a migration may be over before its link is cut. */
async function keepAll(record: () => Promise<Map<string, Uint8Array>>): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      for (const [name, bytes] of await record()) {
        if (bytes.length > 0) writeFileSync(join(RECORDINGS, `${name}.bin`), bytes);
      }
      return;
    } catch (error) {
      if (tries === TRIES) throw error;
    }
  }
}
