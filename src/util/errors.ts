/**
 * Errors of the program. An operating error (peer gone, bad stream, no space) is a PostcopyError
 * with a code that scripts can match, a sentence for people, and often a hint that says what to do
 * next. Each layer adds its own sentence and hangs the error below it on as `cause`; no sentence
 * repeats its cause, because the whole chain is printed once, at the top.
 */

/** What a PostcopyError carries beside its sentence. */
export interface ErrorDetails {
  /** The error below this one; printed after it. */
  cause?: unknown;
  /** What the reader can do about it: a command, a flag, a setting. */
  hint?: string;
}

/** Exit codes of the executable (README, "Exit codes"). */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  host: 3,
  guestEnded: 4,
  interrupt: 130,
  terminate: 143,
} as const;

/** An expected failure. `code` is stable, upper case with underscores, and goes into JSON output. */
export class PostcopyError extends Error {
  readonly code: string;
  readonly hint: string | undefined;

  constructor(code: string, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = code;
    this.hint = details.hint;
  }

  /** The exit code of a command that ends with this error. */
  get exitCode(): number {
    return EXIT.failed;
  }
}

/** The command line is wrong: unknown flag, bad value, missing word. */
export class UsageError extends PostcopyError {
  override get exitCode(): number {
    return EXIT.usage;
  }
}

/** This host lacks something (`check` says how to get it). */
export class HostError extends PostcopyError {
  override get exitCode(): number {
    return EXIT.host;
  }
}

/** The bytes that arrived are not what the protocol allows. */
export class StreamError extends PostcopyError {}

/** An error as plain data, to cross from a worker to main and into JSON output. */
export interface ErrorRecord {
  name: string;
  code: string;
  message: string;
  hint?: string;
  exitCode: number;
  stack?: string;
  cause?: ErrorRecord;
}

/** Turns any thrown value into plain data; programmer errors get the code INTERNAL. */
export function errorRecord(thrown: unknown): ErrorRecord {
  if (!(thrown instanceof Error)) {
    return { name: "Error", code: "INTERNAL", message: String(thrown), exitCode: EXIT.failed };
  }
  const code = "code" in thrown && typeof thrown.code === "string" ? thrown.code : "INTERNAL";
  const record: ErrorRecord = {
    name: thrown.name,
    code,
    message: thrown.message,
    exitCode: thrown instanceof PostcopyError ? thrown.exitCode : EXIT.failed,
  };
  if (thrown instanceof PostcopyError && thrown.hint !== undefined) record.hint = thrown.hint;
  if (thrown.stack !== undefined) record.stack = thrown.stack;
  if (thrown.cause !== undefined) record.cause = errorRecord(thrown.cause);
  return record;
}

/** The chain of sentences, outermost first, and the hints below, each on a line of its own. */
export function describeError(record: ErrorRecord): string {
  const sentences: string[] = [];
  const hints: string[] = [];
  for (let at: ErrorRecord | undefined = record; at !== undefined; at = at.cause) {
    sentences.push(at.message);
    if (at.hint !== undefined) hints.push(at.hint);
  }
  return [sentences.join(": "), ...hints.map((hint) => `  hint: ${hint}`)].join("\n");
}

/** The sentences of an error and its causes, in one line. */
export function errorChain(error: Error): string {
  const sentences: string[] = [];
  for (let at: unknown = error; at instanceof Error; at = at.cause) sentences.push(at.message);
  return sentences.join(": ");
}
