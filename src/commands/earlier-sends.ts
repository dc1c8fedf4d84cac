/**
 * What earlier sends of a kept guest have left in the journal. A guest in files may be sent as often
 * as one likes, also at the same time; but one that was handed over by a process that ended before
 * all of it was there probably runs at its peer, on its disk, and waits for the rest.
 */
import { realpathSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { readManifest } from "../guests/snapshot/manifest.ts";
import { isMemoryOnly } from "../guests/stored/memory-only.ts";
import { identityOf } from "../guests/stored/identity.ts";
import { samePeer } from "../journal/entry.ts";
import type { JournalEntry, JournalGuest, JournalPeer, PeerKey } from "../journal/entry.ts";
import { forgetCommand } from "../journal/journal.ts";
import type { FoundEntry, Journal } from "../journal/journal.ts";
import { PostcopyError } from "../util/errors.ts";
import { isAlive, startedByShell } from "../util/processes.ts";
import { shellLine } from "../util/shell.ts";
import { PROGRAM } from "../util/version.ts";
import type { Output } from "./common.ts";
import type { StoredWord } from "./guest-words.ts";

/** How the journal knows a guest in files: by its place, whatever leads there, and what it is. */
export function storedIdentity(word: StoredWord): Extract<JournalGuest, { kind: "stored" }> {
  const path = placeOfGuest(word);
  try {
    return { kind: "stored", path: realpathSync(path), content: contentOf(word) };
  } catch {
    // That it is not there, or damaged, is found out when it is opened.
    return { kind: "stored", path: resolve(path), content: "" };
  }
}

/** Whether it is memory alone, which no QEMU takes. */
export function isMemoryAlone(word: StoredWord): boolean {
  if (word.kind !== "snapshot") return word.kind === "firecracker";
  try {
    return isMemoryOnly(readManifest(word.directory).machineType);
  } catch {
    // That it is not there, or damaged, is found out when it is opened.
    return false;
  }
}

/** One of several files is the last, whose state the guest is in. */
function placeOfGuest(word: StoredWord): string {
  switch (word.kind) {
    case "snapshot":
      return word.directory;
    case "stream":
      return word.file;
    case "firecracker":
      return word.files.at(-1) ?? "";
  }
}

/** What stays the same as long as it is the same guest, also when the host is started anew. */
function contentOf(word: StoredWord): string {
  if (word.kind === "snapshot") {
    const { createdAt, package: device } = readManifest(word.directory);
    return `${createdAt} ${device.sha256}`;
  }
  const files = word.kind === "stream" ? [word.file] : word.files;
  // Neither inodes nor devices: some file systems number them anew when they are mounted.
  const states = files.map((file) => {
    const { size, mtimeNs } = identityOf(statSync(file, { bigint: true }));
    return `${mtimeNs} ${size}`;
  });
  return states.join(" ");
}

/** What the operator said about them. */
export interface EarlierSendsOptions {
  /** Send the rest. */
  resume: boolean;
  /** Send another copy. */
  again: boolean;
  /** It is memory alone, which is at no QEMU. */
  memoryAlone?: boolean;
}

/**
 * The unfinished sends of a guest to a peer: with `resume`, those that a new one goes on with.
 * @throws PostcopyError SPLIT_BRAIN when there are some and neither flag was given; AMBIGUOUS;
 * BAD_JOURNAL.
 */
export function unfinishedSends(
  journal: Journal,
  guest: JournalGuest,
  peer: PeerKey,
  options: EarlierSendsOptions,
  output: Output,
): FoundEntry[] {
  const unfinished = journal.entriesOf(guest).filter(({ entry }) => !isAlive(entry.sender));
  const same = unfinished.filter(({ entry }) => samePeer(entry.peer, peer));
  const isElsewhere = options.resume && same.length === 0 && peer.kind === "address";
  const here = isElsewhere ? onlySend(unfinished) : same;
  for (const found of unfinished) {
    // Who sends the rest makes no copy.
    if (options.resume || here.includes(found)) continue;
    output.warn("UNFINISHED_SEND", `${handedOver(found.entry)}; this is another copy`);
  }
  const last = here.at(-1);
  if (last === undefined || options.resume || options.again) return here;
  const tell = options.memoryAlone === true ? "" : tellQemu(peer);
  const finish = `${sameCommand("--resume")}${tell}`;
  throw new PostcopyError("SPLIT_BRAIN", `${handedOver(last.entry)}, with pages missing`, {
    hint:
      `finish it there: ${finish}; or send another copy, on a disk of its own: --again; or, if it is ` +
      `certain that it is not there: ${forgetCommand(journal.directory, last.name)}`,
  });
}

/**
 * The send that is resumed at an address where none was begun: a QEMU that is told to listen again
 * gets another port. @throws PostcopyError AMBIGUOUS when it could be one of several.
 */
function onlySend(unfinished: readonly FoundEntry[]): FoundEntry[] {
  const sends = unfinished.filter(({ entry }) => entry.peer.kind === "address");
  if (sends.length <= 1) return sends;
  const places = sends.map(({ entry }) => `${placeOf(entry.peer)} at ${entry.since}`);
  const what = `The guest was handed to ${places.join(", and to ")}`;
  throw new PostcopyError("AMBIGUOUS", `${what}: it is not known which of them waits here`, {
    hint: "have the destination listen where it did, and resume there; or resume by --no-journal",
  });
}

/** A guest as an operator knows it, at the beginning of a sentence. */
export function guestOf(guest: JournalGuest): string {
  switch (guest.kind) {
    case "stored":
      return `The guest of ${guest.path}`;
    case "qemu":
      return `The guest of the QEMU at ${guest.socket}`;
    case "stress":
      return "A stress guest";
  }
}

/** What happened, and where the guest is now. */
export function handedOver({ guest, peer, since, sender }: JournalEntry): string {
  return (
    `${guestOf(guest)} was handed to ${placeOf(peer)} at ${since} by process ${sender.pid}, which ended ` +
    "before all of it was known to be there: it probably runs there"
  );
}

/** Where a guest was handed to. */
export function placeOf(peer: JournalPeer): string {
  if (peer.kind === "address") return peer.text;
  const pid = peer.process === null ? "unknown" : startedByShell(peer.process.pid);
  return `the QEMU that was started for it (process ${pid})`;
}

/** The command line of this process, with a word more. */
function sameCommand(word: string): string {
  return `${shellLine([PROGRAM, ...process.argv.slice(2)])} ${word}`;
}

/** What a QEMU has to be told before. One that was started here is told for the operator. */
function tellQemu(peer: PeerKey): string {
  if (peer.kind === "run") return "";
  return ` (a QEMU there has to be told before, at its monitor: migrate_recover ${peer.text})`;
}
