/** The journal as the commands use it: its flags, and what becomes of the entry of one send. */
import * as z from "zod";
import { defaultJournal, Journal } from "../journal/journal.ts";
import type { FoundEntry } from "../journal/journal.ts";
import { removeRecord, writeRecord } from "../journal/record.ts";
import type { JournalRecord } from "../journal/record.ts";
import { UsageError, errorChain } from "../util/errors.ts";
import type { Output } from "./common.ts";
import { optionalFlag, switchFlag } from "./strict.ts";

export const JOURNAL_FLAGS = {
  journal: optionalFlag(z.string().min(1), {
    valueHint: "DIRECTORY",
    description: "Where guests that are handed over are noted (default: in /var/lib, or one's own)",
  }),
  "no-journal": switchFlag("Do not note it: nothing then keeps a guest from being sent twice"),
} as const;

/** Values of JOURNAL_FLAGS. */
export interface JournalOptions {
  journal: string | undefined;
  noJournal: boolean;
}

/** @throws UsageError when both are given. */
export function checkJournal({ journal, noJournal }: JournalOptions): void {
  if (journal === undefined || !noJournal) return;
  throw new UsageError("CONTRADICTION", "Flags --journal and --no-journal contradict each other");
}

/** Opens the journal; undefined where none is wanted. @throws PostcopyError NO_JOURNAL. */
export function openJournal({ journal, noJournal }: JournalOptions): Journal | undefined {
  return noJournal ? undefined : Journal.open(journal ?? defaultJournal(process.env));
}

/** Notes that all of the guest is at its peer. The entry that says less is safe as well. */
export function noteMoved(record: JournalRecord | undefined, output: Output): void {
  orWarn(output, () => {
    if (record !== undefined) writeRecord(record, "moved");
  });
}

/** Nothing follows from this send any more: the guest is here, or may be sent again. */
export function settle(record: JournalRecord | undefined, output: Output): void {
  orWarn(output, () => {
    if (record !== undefined) removeRecord(record);
  });
}

/** Nothing follows from earlier sends any more. */
export function forget(journal: Journal, earlier: readonly FoundEntry[], output: Output): void {
  orWarn(output, () => journal.forget(earlier));
}

/** Notes that a peer has a part of the guest, and gets the rest from here now. */
export function noteResumed(record: JournalRecord | undefined, output: Output): void {
  orWarn(output, () => {
    if (record !== undefined) writeRecord(record, "committing");
  });
}

/** What is left in the journal refuses more than it should, and never less. */
function orWarn(output: Output, act: () => void): void {
  try {
    act();
  } catch (error) {
    const why = error instanceof Error ? errorChain(error) : String(error);
    output.warn("JOURNAL_NOT_WRITTEN", `The journal could not be brought up to date: ${why}`);
  }
}
