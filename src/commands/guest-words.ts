/** GUEST words: what they name, and what each needs before it can be sent or received. */
import { parseMemoryFiles } from "../guests/firecracker/guest-word.ts";
import { parseStressGuest, STRESS_KEYS } from "../guests/stress/guest-word.ts";
import type { StressParameters } from "../guests/stress/parameters.ts";
import { UsageError } from "../util/errors.ts";
import { fromText } from "../util/schemas.ts";
import { nearest } from "../util/suggest.ts";
import { formatBytes, quoted } from "../util/units.ts";

/** A parsed GUEST word. */
export type GuestWord =
  | { kind: "stress"; parameters: StressParameters; given: boolean }
  | { kind: "snapshot"; directory: string }
  | { kind: "stream"; file: string }
  /** The memory file of a full snapshot, then those of diffs over it. */
  | { kind: "firecracker"; files: string[] }
  | { kind: "qemu"; socket: string }
  | { kind: "uffd"; socket: string };

/** One that names a guest which was kept. */
export type StoredWord = Extract<GuestWord, { kind: "snapshot" | "stream" | "firecracker" }>;

/** Whether a word names one. */
export function isStored(word: GuestWord): word is StoredWord {
  return word.kind === "snapshot" || word.kind === "stream" || word.kind === "firecracker";
}

const KINDS = ["stress", "snapshot", "stream", "firecracker", "qemu", "uffd"] as const;

function parseGuest(text: string): GuestWord {
  const [kind = "", ...rest] = text.split(":");
  const path = rest.join(":");
  switch (kind) {
    case "stress":
      return { kind, parameters: parseStressGuest(text), given: rest.length > 0 };
    case "snapshot": {
      if (path !== "") return { kind, directory: path };
      throw new UsageError("BAD_GUEST", "Guest snapshot has no directory", {
        hint: "write snapshot:DIRECTORY",
      });
    }
    case "qemu": {
      if (path !== "") return { kind, socket: path };
      throw new UsageError("BAD_GUEST", "Guest qemu has no monitor", {
        hint: "write qemu:PATH with the socket of its -qmp unix:PATH,server=on,wait=off",
      });
    }
    case "uffd": {
      if (path !== "") return { kind, socket: path };
      throw new UsageError("BAD_GUEST", "Guest uffd has no socket", {
        hint: "write uffd:PATH with the socket on which the VMM hands its memory over",
      });
    }
    case "stream": {
      if (path !== "") return { kind, file: path };
      throw new UsageError("BAD_GUEST", "Guest stream has no file", { hint: "write stream:FILE" });
    }
    case "firecracker":
      return { kind, files: parseMemoryFiles(path) };
  }
  const near = nearest(kind, KINDS);
  throw new UsageError("BAD_GUEST", `There is no guest ${quoted(kind)}`, {
    hint:
      near === undefined
        ? "guests are stress, snapshot:DIRECTORY, stream:FILE, firecracker:FILE, qemu:SOCKET and " +
          "uffd:SOCKET"
        : `did you mean ${near}?`,
  });
}

/** A stress guest in words. */
export function stressText(parameters: StressParameters): string {
  const { size, workers } = parameters;
  return `stress, ${formatBytes(size)}, ${workers} workers`;
}

/** The keys of the stress guest, for the help. */
export function stressKeysText(): string {
  const rows = STRESS_KEYS.map((row) => {
    return `  ${row.key.padEnd(10)}  ${row.meaning} (Default: ${row.default})`;
  });
  return ["KEYS OF THE STRESS GUEST", "", ...rows].join("\n");
}

/** A GUEST word on the command line. */
export const guestSchema = fromText(parseGuest);
