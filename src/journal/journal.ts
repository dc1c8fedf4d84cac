/**
 * The journal of a host: which guests were handed to a peer from here, durably, so that none is run
 * twice by who sends it again (docs: ARCHITECTURE, "Who has the guest"). One small file a send, in one
 * directory; all processes of this host that send guests look into it.
 */
import { createHash } from "node:crypto";
import { accessSync, constants, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { someoneListens } from "../channel/listen.ts";
import { makeDirectory, removeFile } from "../util/durable.ts";
import { PostcopyError } from "../util/errors.ts";
import { bootId, isAlive, ownProcess } from "../util/processes.ts";
import { shellLine } from "../util/shell.ts";
import { nearest } from "../util/suggest.ts";
import { quoted } from "../util/units.ts";
import { PROGRAM } from "../util/version.ts";
import { entrySchema, newEntry } from "./entry.ts";
import type { JournalEntry, JournalGuest, JournalPeer } from "./entry.ts";
import type { JournalRecord } from "./record.ts";

/** An entry that was found, and the name of its file. */
export interface FoundEntry {
  name: string;
  entry: JournalEntry;
}

/** An entry of whatever guest, by the name that an operator gives it. */
export interface ListedEntry {
  name: string;
  /** Its file. */
  path: string;
  /** Undefined where it is damaged. */
  entry: JournalEntry | undefined;
}

/** What the names of files add to those of entries. */
const SUFFIX = ".json";
/** How a file of an entry is named: the guest's key, and the process that sends. */
const ENTRY_NAME = /^[0-9a-f]{16}-\d+-\d+\.json$/;
/** One that was never finished: what it was to say has not happened. */
const UNFINISHED_NAME = /^[0-9a-f]{16}-(\d+)-(\d+)\.json\.tmp$/;

/** Where the journal is unless it is said: of root for the host, of others for themselves. */
export function defaultJournal(environment: Readonly<Record<string, string | undefined>>): string {
  if (process.getuid?.() === 0) return "/var/lib/postcopy";
  const state = environment["XDG_STATE_HOME"] ?? "";
  return join(state === "" ? join(homedir(), ".local", "state") : state, "postcopy");
}

export class Journal {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  /**
   * Opens the journal in a directory, which is created; what can mean nothing any more is removed.
   * @throws PostcopyError NO_JOURNAL when it cannot be written to.
   */
  static open(directory: string): Journal {
    try {
      makeDirectory(directory);
      accessSync(directory, constants.R_OK | constants.W_OK | constants.X_OK);
    } catch (cause) {
      const what = `The journal in ${directory} cannot be written`;
      throw new PostcopyError("NO_JOURNAL", what, {
        cause,
        hint:
          "without it a guest that was handed over could be started twice: name a directory by " +
          "--journal, or do without by --no-journal",
      });
    }
    const journal = new Journal(directory);
    journal.#prune();
    return journal;
  }

  /** All entries of a guest. @throws PostcopyError BAD_JOURNAL when one cannot be read. */
  entriesOf(guest: JournalGuest): FoundEntry[] {
    const key = guestKey(guest);
    return this.#names()
      .filter((name) => name.startsWith(`${key}-`))
      .flatMap((name) => this.#read(name) ?? [])
      .sort((one, other) => one.entry.since.localeCompare(other.entry.since));
  }

  /** The record of a send that is about to begin; nothing is written yet. */
  record(
    guest: JournalGuest,
    peer: JournalPeer,
    options: { keep?: boolean; replaces?: readonly FoundEntry[] | undefined } = {},
  ): JournalRecord {
    const { keep = false, replaces = [] } = options;
    const sender = ownProcess();
    return {
      directory: this.directory,
      name: `${guestKey(guest)}-${sender.pid}-${sender.startTicks}.json`,
      // Since when the guest is there is not changed by who sends the rest.
      entry: { ...newEntry({ guest, peer, keep, sender }), ...sinceOf(replaces) },
      replaces: replaces.map(({ name }) => name),
    };
  }

  /** Forgets entries from which nothing follows. */
  forget(entries: readonly FoundEntry[]): void {
    for (const { name } of entries) removeFile(join(this.directory, name));
  }

  /** All entries, of whatever guest, the earliest first, and those that are damaged behind them. */
  list(): ListedEntry[] {
    const sinceMs = ({ entry }: ListedEntry): number =>
      entry === undefined ? Number.MAX_SAFE_INTEGER : Date.parse(entry.since);
    return this.#names()
      .flatMap((name) => this.#listed(name) ?? [])
      .sort((one, other) => sinceMs(one) - sinceMs(other));
  }

  /**
   * Forgets the entry of a name, and returns what it was.
   * @throws PostcopyError NO_ENTRY where there is none; SENDING where its send is under way.
   */
  forgetNamed(name: string): ListedEntry {
    const entries = this.list();
    const found = entries.find((each) => each.name === name);
    if (found === undefined) {
      const near = nearest(
        name,
        entries.map((each) => each.name),
      );
      const hint = near === undefined ? "postcopy journal lists them" : `did you mean ${near}?`;
      const what = `The journal in ${this.directory} has no entry ${quoted(name)}`;
      throw new PostcopyError("NO_ENTRY", what, { hint });
    }
    const { entry } = found;
    if (entry !== undefined && isAlive(entry.sender)) {
      const what = `Process ${entry.sender.pid} is sending the guest of the entry ${name}`;
      throw new PostcopyError("SENDING", what, {
        hint: "its entry goes by itself when nothing follows from it; or end that process first",
      });
    }
    removeFile(found.path);
    return found;
  }

  #listed(file: string): ListedEntry | undefined {
    const name = file.slice(0, -SUFFIX.length);
    const path = join(this.directory, file);
    try {
      const found = this.#read(file);
      return found && { name, path, entry: found.entry };
    } catch (error) {
      if (!(error instanceof PostcopyError)) throw error;
      return { name, path, entry: undefined };
    }
  }

  #names(): string[] {
    return readdirSync(this.directory).filter((name) => ENTRY_NAME.test(name));
  }

  /** Files that a process left in the middle of writing them. */
  #unfinished(): string[] {
    return readdirSync(this.directory).filter((name) => {
      const [, pid, startTicks] = UNFINISHED_NAME.exec(name) ?? [];
      if (pid === undefined) return false;
      return !isAlive({ pid: Number(pid), startTicks: Number(startTicks), boot: bootId() });
    });
  }

  /** One entry; undefined when it was removed meanwhile. */
  #read(name: string): FoundEntry | undefined {
    const path = join(this.directory, name);
    let cause: unknown;
    try {
      return { name, entry: entrySchema.parse(JSON.parse(readFileSync(path, "utf8"))) };
    } catch (thrown) {
      cause = thrown;
    }
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    // That it says nothing does not show that nothing happened.
    const what = `The journal's entry ${path} of this guest is damaged`;
    throw new PostcopyError("BAD_JOURNAL", `${what}: the guest may have been handed over`, {
      hint: `look where the guest runs; then: ${forgetCommand(this.directory, name)}`,
    });
  }

  #prune(): void {
    for (const name of this.#unfinished()) removeFile(join(this.directory, name));
    for (const name of this.#names()) {
      try {
        const found = this.#read(name);
        if (found !== undefined && isVoid(found.entry)) this.forget([found]);
      } catch (error) {
        // It stays, and is told of to who sends that guest; nobody else is concerned.
        if (!(error instanceof PostcopyError)) throw error;
      }
    }
  }
}

/** The command that forgets the entry in a file of that name. */
export function forgetCommand(directory: string, file: string): string {
  const name = file.slice(0, -SUFFIX.length);
  return shellLine([PROGRAM, "journal", "--journal", directory, "--forget", name]);
}

function sinceOf([first]: readonly FoundEntry[]): Partial<Pick<JournalEntry, "since">> {
  return first === undefined ? {} : { since: first.entry.since };
}

/** Whether what an entry speaks of is no more, so that it says nothing of any guest that is. */
function isVoid({ guest, peer, sender }: JournalEntry): boolean {
  if (guest.kind === "stress") return !isAlive(sender);
  if (guest.kind === "qemu") {
    // One that cannot be seen ended at the latest with the host.
    return guest.process === null ? sender.boot !== bootId() : !isAlive(guest.process);
  }
  if (peer.kind !== "run" || isAlive(sender)) return false;
  // It was in that QEMU, and ended with it. A wrapper may have ended before what it started.
  return (peer.process === null || !isAlive(peer.process)) && !someoneListens(peer.monitor);
}

/** What is the same for all sends of one guest, as a part of a file's name. */
function guestKey(guest: JournalGuest): string {
  const identity = ((): unknown[] => {
    switch (guest.kind) {
      case "stored":
        return [guest.path, guest.content];
      case "qemu":
        return [guest.process ?? guest.socket, guest.uuid];
      case "stress":
        return [ownProcess()];
    }
  })();
  const hash = createHash("sha256").update(JSON.stringify([guest.kind, ...identity]));
  return hash.digest("hex").slice(0, 16);
}
