/** `postcopy journal`: which guests were handed over from this host, and how one is forgotten. */
import { existsSync } from "node:fs";
import * as z from "zod";
import { defaultJournal, Journal } from "../journal/journal.ts";
import type { ListedEntry } from "../journal/journal.ts";
import { PostcopyError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { isAlive } from "../util/processes.ts";
import { stderrTerminal } from "../util/terminal.ts";
import { checkCommon, COMMON_FLAGS, openOutput } from "./common.ts";
import type { Output } from "./common.ts";
import { guestOf, handedOver, placeOf } from "./earlier-sends.ts";
import { JOURNAL_FLAGS } from "./journal.ts";
import { defineStrictCommand, optionalFlag } from "./strict.ts";

export const journal = defineStrictCommand({
  name: "journal",
  description: "List the guests that were handed over from this host, and forget one",
  flags: {
    journal: JOURNAL_FLAGS.journal,
    forget: optionalFlag(z.string().min(1), {
      valueHint: "NAME",
      description: "Forget this entry: its guest may then be sent from here again",
    }),
    ...COMMON_FLAGS,
  },
  notes: [
    "An entry goes by itself when all of its guest is known to be somewhere. One that stays keeps a guest",
    "from being started twice: look first whether it runs where it was handed to.",
  ].join("\n"),
  example: "postcopy journal\npostcopy journal --forget 0123456789abcdef-4711-123456",
  check: checkCommon,
  run: async (options) => {
    const output = await openOutput(options);
    const directory = options.journal ?? defaultJournal(process.env);
    // A name that is mistyped is to be found out, and to leave nothing behind.
    if (!existsSync(directory)) {
      if (options.journal !== undefined || options.forget !== undefined) throw noJournal(directory);
      if (!options.quiet) stderrTerminal.writeLines(`There is no journal in ${directory}`);
      return;
    }
    const opened = Journal.open(directory);
    if (options.forget !== undefined) {
      const forgotten = opened.forgetNamed(options.forget);
      tell(forgotten, output);
      log.info(`Forgotten: ${describe(forgotten)}`);
      return;
    }
    const entries = opened.list();
    for (const entry of entries) tell(entry, output);
    if (options.quiet) return;
    const lines = entries.flatMap((each) => [stderrTerminal.paint.bold(each.name), indented(each)]);
    const none = `The journal in ${opened.directory} has no entry`;
    stderrTerminal.writeLines(entries.length === 0 ? none : lines.join("\n"));
  },
});

function noJournal(directory: string): PostcopyError {
  return new PostcopyError("NO_JOURNAL", `There is no journal in ${directory}`, {
    hint: "one is made where the first guest is handed over from; --journal names another",
  });
}

function indented(listed: ListedEntry): string {
  return `  ${describe(listed)}`;
}

/** What an entry says, in a sentence. */
function describe({ entry }: ListedEntry): string {
  if (entry === undefined) return "Damaged: some guest may have been handed over";
  const { guest, peer, since, sender, state } = entry;
  if (isAlive(sender)) {
    return `${guestOf(guest)} is being handed to ${placeOf(peer)}, since ${since}, by process ${sender.pid}`;
  }
  return state === "moved"
    ? `${guestOf(guest)} has moved to ${placeOf(peer)}, which began at ${since}`
    : handedOver(entry);
}

function tell({ name, path, entry }: ListedEntry, { events }: Output): void {
  const known = entry && {
    ...{ guest: guestOf(entry.guest), peer: placeOf(entry.peer), since: entry.since },
    ...{ state: entry.state, sending: isAlive(entry.sender) },
  };
  const unknown = {
    guest: null,
    peer: null,
    since: null,
    state: "damaged",
    sending: false,
  } as const;
  events.emit({ event: "entry", name, path, ...(known ?? unknown) });
}
