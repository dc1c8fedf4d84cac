/**
 * A snapshot and an index that were made of a recording by the program itself, to be damaged: and
 * the checksums made right again afterwards, as by somebody who wants the damage to be believed.
 */
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { getU64, putU64 } from "../../../syscalls/memory.ts";
import { openSnapshot } from "../../../src/guests/snapshot/open.ts";
import { workingSetPath } from "../../../src/guests/snapshot/layout.ts";
import { recordRequests } from "../../../src/guests/stored/working-set.ts";
import { identityOf } from "../../../src/guests/stored/identity.ts";
import { readModel } from "../model.ts";
import type { ModelBlock } from "../model-memory.ts";
import { keepStream } from "./dest.ts";

/** The files of a snapshot that are damaged, one at a time. */
export const SNAPSHOT_FILES = [
  ...["manifest.json", "ram-0.bin", "ram-0.crc32"],
  ...["package.bin", "vm-description.json", "working-set.bin"],
] as const;

/** What a guest was kept in. */
export interface KeptRecording {
  stream: Uint8Array;
  blocks: readonly ModelBlock[];
  files: ReadonlyMap<string, Uint8Array>;
}

/** Runs in a directory of its own, which is gone afterwards. */
export function inDirectory<Result>(use: (directory: string) => Result): Result {
  const directory = mkdtempSync(join(tmpdir(), "postcopy-fuzz-"));
  try {
    return use(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

let kept: KeptRecording | undefined;

/** The snapshot of a recording; there is one recording that snapshots are made of. */
export function keptOf(stream: Uint8Array): KeptRecording {
  kept ??= inDirectory((directory) => {
    const path = keepStream(stream, directory);
    const snapshot = openSnapshot(path);
    recordRequests(workingSetPath(path), snapshot.blocks, Uint32Array.of(7, 3, 300, 511));
    const files = readdirSync(path).map((name): [string, Uint8Array] => {
      return [name, new Uint8Array(readFileSync(join(path, name)))];
    });
    return { stream, blocks: readModel(stream).blocks, files: new Map(files) };
  });
  return kept;
}

/** The same, once it was made. */
export function knownKept(): KeptRecording {
  if (kept === undefined) throw new Error("nothing was kept yet");
  return kept;
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

interface LooseManifest {
  blocks?: { sums?: unknown; sumsSha256?: unknown }[];
  package?: LooseFile;
  vmDescription?: LooseFile;
}
interface LooseFile {
  file?: unknown;
  bytes?: unknown;
  sha256?: unknown;
}

/** Has a manifest say what the files beside it are. */
export function sealSnapshot(directory: string): void {
  const path = join(directory, "manifest.json");
  const contentOf = (name: unknown): Uint8Array | undefined => {
    const file = typeof name === "string" ? join(directory, name) : "";
    return existsSync(file) && statSync(file).isFile() ? readFileSync(file) : undefined;
  };
  try {
    const manifest = JSON.parse(readFileSync(path, "utf8")) as LooseManifest;
    for (const block of manifest.blocks ?? []) {
      const bytes = contentOf(block.sums);
      if (bytes !== undefined) block.sumsSha256 = sha256(bytes);
    }
    for (const file of [manifest.package, manifest.vmDescription]) {
      const bytes = contentOf(file?.file);
      if (file !== undefined && bytes !== undefined) {
        file.bytes = bytes.length;
        file.sha256 = sha256(bytes);
      }
    }
    writeFileSync(path, JSON.stringify(manifest));
  } catch {
    // It is no JSON any more, or has another shape: it stays as it is.
  }
}

const FOOTER_BYTES = 64;
const DIGEST_BYTES = 32;

/** Has an index be of the file at `path`, with the digest of what it holds. */
export function sealIndex(bytes: Uint8Array, path: string): Uint8Array {
  try {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const footerAt = bytes.length - FOOTER_BYTES;
    const [tablesAt, jsonAt] = [getU64(view, footerAt + 8), getU64(view, footerAt + 16)];
    const head = JSON.parse(Buffer.from(bytes.subarray(jsonAt, footerAt)).toString()) as Record<
      string,
      unknown
    >;
    head["file"] = identityOf(statSync(path, { bigint: true }));
    head["opening"] = sha256(readFileSync(path).subarray(0, 64 * 1024));
    const json = Buffer.from(JSON.stringify(head));
    const footer = bytes.slice(footerAt);
    putU64(new DataView(footer.buffer), 24, json.length);
    const sealed = Buffer.concat([bytes.subarray(0, jsonAt), json, footer]);
    const digestAt = sealed.length - DIGEST_BYTES;
    createHash("sha256")
      .update(sealed.subarray(tablesAt, digestAt))
      .digest()
      .copy(sealed, digestAt);
    return new Uint8Array(sealed);
  } catch {
    // What it points at is not there: it stays as it is.
    return bytes;
  }
}
