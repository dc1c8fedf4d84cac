/**
 * The entry of one send, as it is written and removed. It is plain data, as the thread that sends
 * writes it and main removes it.
 */
import { join } from "node:path";
import { PostcopyError } from "../util/errors.ts";
import { removeFile, replaceFile } from "../util/durable.ts";
import type { JournalEntry } from "./entry.ts";

export interface JournalRecord {
  directory: string;
  /** Name of its file. */
  name: string;
  entry: JournalEntry;
  /** Files of earlier entries in whose place it comes: of the send that it goes on with. */
  replaces: readonly string[];
}

/**
 * Makes an entry durable, in the place of those that it replaces.
 * @throws PostcopyError NO_JOURNAL.
 */
export function writeRecord(record: JournalRecord, state: JournalEntry["state"]): void {
  const { directory, name, entry, replaces } = record;
  try {
    replaceFile(join(directory, name), `${JSON.stringify({ ...entry, state })}\n`);
  } catch (cause) {
    throw new PostcopyError("NO_JOURNAL", `The journal in ${directory} cannot be written`, {
      cause,
    });
  }
  for (const earlier of replaces) removeFile(join(directory, earlier));
}

/** Removes an entry: nothing follows from it any more. */
export function removeRecord({ directory, name }: JournalRecord): void {
  removeFile(join(directory, name));
}
