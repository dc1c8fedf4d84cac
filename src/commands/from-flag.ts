/** `dest --from GUEST` in place of `--listen PEER`: what goes with it, and what does not. */
import type { Peer } from "../channel/address.ts";
import { UsageError } from "../util/errors.ts";
import { isStored } from "./guest-words.ts";
import type { GuestWord } from "./guest-words.ts";

/** Flags that say how another process is reached, or how it is found again. */
const LINK_FLAGS = ["tls", "tls-hostname", "insecure", "allow", "recover-timeout"];
/** Flags of whoever connects to another process. */
const CALLER_FLAGS = ["preempt", "connect-timeout"];
/** Flags of whoever sends a kept guest. */
const SENDER_FLAGS = ["no-record", "no-replay", "replay-limit"];
/** Flags of whoever sends any guest. */
const SOURCE_ONLY_FLAGS = [
  ...["switchover", "max-bandwidth", "max-postcopy-bandwidth", "compress", "downtime-limit"],
  ...CALLER_FLAGS,
];

/** What of the options of `dest` is looked at here. */
interface FromOptions {
  guest: GuestWord;
  listen: Peer | undefined;
  from: GuestWord | undefined;
}

/**
 * Pages come from a source or from files: what is for the one is nothing for the other. `given` are the
 * flags that were written.
 */
export function checkFrom({ guest, listen, from }: FromOptions, given: ReadonlySet<string>): void {
  if (from === undefined) {
    if (listen === undefined) {
      throw new UsageError("MISSING_FLAG", "Flag --listen is missing", {
        hint: "say where the source connects: --listen tcp:HOST:PORT; or, of uffd:, --from GUEST",
      });
    }
    refuseFlags(given, SENDER_FLAGS, "for --from");
    // A VMM's guest goes nowhere from here.
    const why = "for who sends a guest: give it to the source";
    if (guest.kind === "uffd") refuseFlags(given, SOURCE_ONLY_FLAGS, why);
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
  refuseFlags(given, LINK_FLAGS, "for a source that connects, and not for --from");
  refuseFlags(given, CALLER_FLAGS, "for another process, and not for --from");
}

/** Refuses those flags that were given. */
function refuseFlags(given: ReadonlySet<string>, flags: readonly string[], why: string): void {
  for (const flag of flags) {
    if (given.has(flag)) throw new UsageError("CONTRADICTION", `Flag --${flag} is ${why}`);
  }
}
