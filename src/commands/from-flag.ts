/** `dest --from GUEST` in place of `--listen PEER`: what goes with it, and what does not. */
import type { Peer } from "../channel/address.ts";
import type { AllowRule } from "../channel/allow.ts";
import { UsageError } from "../util/errors.ts";
import type { GuestWord } from "./guest-words.ts";
import type { SecurityOptions } from "./security.ts";
import { isStored } from "./stored-guest.ts";
import type { StoredOptions } from "./stored-guest.ts";

/** Flags that say how another process is reached, or how it is found again. */
const LINK_FLAGS = ["tls", "tlsHostname", "insecure", "allow", "recoverTimeout"] as const;
/** Flags of whoever sends a kept guest. */
const SENDER_FLAGS = ["noRecord", "noReplay", "replayLimit"] as const;

/** What of the flags of `dest` is looked at here. */
type FromOptions = StoredOptions &
  Pick<SecurityOptions, "tls" | "tlsHostname" | "insecure"> & {
    guest: GuestWord;
    listen: Peer | undefined;
    from: GuestWord | undefined;
    allow: readonly AllowRule[];
    recoverTimeout: number | undefined;
  };

/** Pages come from a source or from files: what is for the one is nothing for the other. */
export function checkFrom(options: FromOptions): void {
  const { guest, listen, from } = options;
  if (from === undefined) {
    if (listen === undefined) {
      throw new UsageError("MISSING_FLAG", "Flag --listen is missing", {
        hint: "say where the source connects: --listen tcp:HOST:PORT; or, of uffd:, --from GUEST",
      });
    }
    refuseFlags(options, SENDER_FLAGS, "for --from");
    return;
  }
  if (listen !== undefined) {
    throw new UsageError("CONTRADICTION", "Flags --listen and --from contradict each other", {
      hint: "leave one of them out: pages come from a source, or from files",
    });
  }
  if (guest.kind !== "uffd") {
    throw new UsageError("CONTRADICTION", "Flag --from is for a VMM's memory (uffd:SOCKET)");
  }
  if (!isStored(from)) {
    throw new UsageError(
      "CONTRADICTION",
      `Flag --from is for a kept guest, and not for ${from.kind}`,
      {
        hint: "name one: snapshot:DIRECTORY, stream:FILE or firecracker:FILE",
      },
    );
  }
  refuseFlags(options, LINK_FLAGS, "for a source that connects, and not for --from");
}

/** Refuses those flags that were given. */
function refuseFlags(
  options: FromOptions,
  names: readonly (typeof LINK_FLAGS | typeof SENDER_FLAGS)[number][],
  why: string,
): void {
  for (const name of names) {
    const value = options[name];
    if (value === undefined || value === false || (Array.isArray(value) && value.length === 0))
      continue;
    const flag = name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
    throw new UsageError("CONTRADICTION", `Flag --${flag} is ${why}`);
  }
}
