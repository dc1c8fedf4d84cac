/** Which guest in files it is (stream/identity.ts): the same for every process that has the same files. */
import { readManifest } from "../guests/snapshot/manifest.ts";
import { sampleOf } from "../guests/stored/file-sample.ts";
import { identityOfText } from "../stream/identity.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import { storedIdentity } from "./earlier-sends.ts";
import type { StoredWord } from "./stored-guest.ts";

/**
 * Of what the journal knows a guest by, and more of its content than that: files that were unpacked may
 * have one time and one size. The place is left out, as another host may send the rest.
 */
export function guestIdentity(word: StoredWord): GuestIdentity {
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
