/** A kept guest whose files are open. */
import type { SourceGuestData } from "../guests/registry.ts";
import type { GuestIdentity } from "../stream/identity.ts";
import type { StoredWord } from "./guest-words.ts";

/** What a SourceJob needs to know of it. */
export interface StoredGuest {
  guest: Extract<SourceGuestData, { kind: StoredWord["kind"] }>;
  /** Which it is, for a destination that waits for the rest of it. */
  identity: GuestIdentity;
  guestText: string;
  /** Where its working set is recorded; undefined: nowhere. */
  recordPath: string | undefined;
  workingSet: Uint32Array | undefined;
  replay: Uint32Array;
  watch: boolean;
}

/** The same, before it is known which guest it is. */
export type OpenedFiles = Omit<StoredGuest, "identity">;
