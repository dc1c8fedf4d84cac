/** Which guest in files it is (stream/identity.ts): the same for every process that has the same files. */
import { createHash } from "node:crypto";
import { readManifest } from "../guests/snapshot/manifest.ts";
import { sampleOf } from "../guests/stored/file-sample.ts";
import type { OpenedStream } from "../guests/stream/opened.ts";
import { IDENTITY_BYTES, identityOfText } from "../stream/identity.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import { storedIdentity } from "./earlier-sends.ts";
import type { StoredWord } from "./guest-words.ts";

/** Checksums that are hashed at once: what threads share is copied out first. */
const STEP_BYTES = 1024 * 1024;

/**
 * Of what the journal knows a guest by, and more of its content than that: files that were unpacked may
 * have one time and one size. The place is left out, as another host may send the rest.
 *
 * A snapshot's manifest has checksums of all. Files that have none are known by a sample and by the time of
 * their last change: memories of one size may differ in a few pages only (microVMs that began from one
 * snapshot), which no sample finds, and to read all of them takes too long. So a copy must keep the time.
 */
export function filesIdentity(word: StoredWord): GuestIdentity {
  return identityOfText([storedIdentity(word).content, ...contentOf(word)].join(" "));
}

function contentOf(word: StoredWord): string[] {
  try {
    switch (word.kind) {
      case "snapshot":
        return readManifest(word.directory).blocks.map(({ sumsSha256 }) => sumsSha256);
      case "stream":
        return [sampleOf(word.file)];
      case "firecracker":
        return word.files.map(sampleOf);
    }
  } catch {
    // That it is not there, or damaged, is found out when it is opened.
    return [];
  }
}

/**
 * That of a saved stream, of which all has been read to find its pages: by the checksums of these, its
 * blocks and its device state, whenever, in which file, and however compressed it was saved. Undefined for a
 * mapped-ram file, in which pages have their places, and of which nothing but that is read.
 */
export function streamIdentity({
  machineType,
  blocks,
  sums,
  package: device,
}: Pick<OpenedStream, "machineType" | "blocks" | "sums" | "package">): GuestIdentity | undefined {
  if (sums === undefined) return undefined;
  const shape = blocks.map(({ name, length }) => [name, length]);
  const hash = createHash("sha256").update(JSON.stringify([machineType, shape]));
  const step = new Uint8Array(STEP_BYTES);
  for (const shared of sums) {
    const bytes = new Uint8Array(shared);
    for (let at = 0; at < bytes.length; at += STEP_BYTES) {
      const part = bytes.subarray(at, at + STEP_BYTES);
      step.set(part);
      hash.update(step.subarray(0, part.length));
    }
  }
  return hash.update(device).digest().toString("hex", 0, IDENTITY_BYTES);
}
