/**
 * A role of postcopy as a script meets it: started with --json, each of its events checked against
 * the published schema, its end with report and error taken apart.
 *
 *     await using dest = await startDest();
 *     await using source = startSource({ to: dest.peer, guest: "stress:size=16MiB" });
 *     await source.event("switchover");
 *     expectMoved(await source.end(), await dest.end(), pages("16MiB"));
 */
import { expect } from "bun:test";

import { eventsSchema } from "../../src/report/events.ts";
import type { Event } from "../../src/report/events.ts";
import type { DestReport, SourceReport } from "../../src/report/report.ts";
import { parseBytes } from "../../src/util/units.ts";
import { withDeadline } from "./deadline.ts";
import { postcopyCommand, spawn } from "./spawn.ts";
import type { RunningProgram } from "./spawn.ts";
import type { TextLog } from "./text-log.ts";

/** A guest that is large enough to be on the move for a while and small enough to be cheap. */
export const SMALL_GUEST = "stress:size=16MiB,duration=100ms";

/** For a test of what is said and done when a broken link stays broken. */
export const NO_RECOVERY = ["--recover-timeout", "0"] as const;

/** The event of one name. */
export type EventNamed<Name extends Event["event"]> = Extract<Event, { event: Name }>;

/** How a role ended. */
export interface RoleEnd<Report> {
  exitCode: number | null;
  stderr: string;
  events: readonly Event[];
  /** Of its first report, if it made one. */
  report: Report;
  /** The error event, if there was one. */
  error: EventNamed<"error"> | undefined;
  /** What the audit of a guest that stayed at the source found. */
  stayed: EventNamed<"stayed"> | undefined;
}

/** Reads lines of --json output, checking each. */
async function* readEvents(stdout: TextLog): AsyncGenerator<Event> {
  for await (const line of stdout.lines()) yield eventsSchema.parse(JSON.parse(line));
}

/** The first event of a name (that `matches`), now or as soon as it comes. */
export async function waitForEvent<Name extends Event["event"]>(
  stdout: TextLog,
  name: Name,
  matches: (event: EventNamed<Name>) => boolean = () => true,
): Promise<EventNamed<Name>> {
  const isIt = (event: Event): event is EventNamed<Name> => event.event === name;
  const search = async (): Promise<EventNamed<Name>> => {
    for await (const event of readEvents(stdout)) if (isIt(event) && matches(event)) return event;
    throw new Error(`it ended without the event "${name}"\n${stdout.tail}`);
  };
  return await withDeadline(search(), `the event "${name}"`);
}

/** All events of a role that has ended. */
export async function allEvents(stdout: TextLog): Promise<Event[]> {
  return await Array.fromAsync(readEvents(stdout));
}

/** One running role. */
export class Role<Report> implements AsyncDisposable {
  readonly program: RunningProgram;
  /** Where it listens; only of a destination. */
  readonly peer: string;

  constructor(program: RunningProgram, peer = "") {
    this.program = program;
    this.peer = peer;
  }

  /** Waits for an event; fails with what the role said when it ends without. */
  async event<Name extends Event["event"]>(
    name: Name,
    matches?: (event: EventNamed<Name>) => boolean,
  ): Promise<EventNamed<Name>> {
    try {
      return await waitForEvent(this.program.stdout, name, matches);
    } catch (error) {
      throw new Error(`${String(error)}\n${this.program.stderr.tail}`, { cause: error });
    }
  }

  /** Waits for the phase of a name to begin. */
  async phase(phase: string): Promise<void> {
    await this.event("phase", (event) => event.phase === phase);
  }

  /** Waits for its end. */
  async end(): Promise<RoleEnd<Report>> {
    const { exitCode, stderr } = await this.program.finish();
    const events = await allEvents(this.program.stdout);
    const first = <Name extends Event["event"]>(name: Name): EventNamed<Name> | undefined =>
      events.find((event): event is EventNamed<Name> => event.event === name);
    const report = first("report")?.report as Report;
    return { exitCode, stderr, events, report, error: first("error"), stayed: first("stayed") };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.program[Symbol.asyncDispose]();
  }
}

export type SourceRole = Role<SourceReport>;
export type DestRole = Role<DestReport>;

/** What both roles can be started with. */
export interface RoleOptions {
  guest?: string;
  flags?: readonly string[];
  /** Words before the command, such as `setpriv --reuid=65534`. */
  before?: readonly string[];
}

/** Starts a destination and waits until it listens; `from`: in place of a source, these files. */
export async function startDest(
  options: RoleOptions & { listen?: string; from?: string } = {},
): Promise<DestRole> {
  const { guest = "stress", listen = "tcp:127.0.0.1:0", from, flags = [], before = [] } = options;
  const where = from === undefined ? ["--listen", listen] : ["--from", from];
  const words = ["dest", "--json", "--guest", guest, ...where, ...flags];
  const program = spawn([...before, ...postcopyCommand(...words)]);
  try {
    const { peer } = await new Role<DestReport>(program).event("listening");
    return new Role(program, peer);
  } catch (error) {
    await program[Symbol.asyncDispose]();
    throw error;
  }
}

/** Starts a source. */
export function startSource(options: RoleOptions & { to: string }): SourceRole {
  const { guest = SMALL_GUEST, to, flags = [], before = [] } = options;
  const words = ["source", "--json", "--guest", guest, "--to", to, ...flags];
  return new Role(spawn([...before, ...postcopyCommand(...words)]));
}

/** Target pages of a size in words. */
export function pages(size: string): number {
  return parseBytes(size) / 4096;
}

/** How a guest is moved by `move`. */
export interface Move {
  guest?: string;
  sourceFlags?: readonly string[];
  destFlags?: readonly string[];
  listen?: string;
}

/** Moves a stress guest from one process to another; both have ended when it returns. */
export async function move(options: Move = {}): Promise<{
  source: RoleEnd<SourceReport>;
  dest: RoleEnd<DestReport>;
}> {
  const { guest = SMALL_GUEST, sourceFlags = [], destFlags = [], listen } = options;
  await using dest = await startDest({
    flags: destFlags,
    ...(listen === undefined ? {} : { listen }),
  });
  await using source = startSource({ to: dest.peer, guest, flags: sourceFlags });
  const [sourceEnd, destEnd] = await Promise.all([source.end(), dest.end()]);
  return { source: sourceEnd, dest: destEnd };
}

/**
 * The guest of `count` pages is at the destination, exactly as it was, and the two reports agree
 * with each other about every page.
 */
export function expectMoved(
  source: RoleEnd<SourceReport>,
  dest: RoleEnd<DestReport>,
  count: number,
): void {
  expect([source, dest].map(({ exitCode, stderr }) => ({ exitCode, stderr }))).toMatchObject([
    { exitCode: 0 },
    { exitCode: 0 },
  ]);
  expect(dest.report).toMatchObject({
    role: "dest",
    outcome: "completed",
    phase: "completed",
    error: null,
    audit: { pagesChecked: count, pagesWrong: 0 },
  });
  expect(source.report).toMatchObject({
    role: "source",
    outcome: "completed",
    phase: "completed",
    error: null,
  });
  expectAgreement(source.report, dest.report, count);
}

/**
 * What one end sent the other received; every owed page was sent once. What was sent once more may be
 * under way when the last page has come: nobody waits for it.
 */
export function expectAgreement(source: SourceReport, dest: DestReport, count: number): void {
  const sent = source.pages;
  const got = dest.pages;
  const pushed = sent.pushedNormal + sent.pushedZero;
  const requested = sent.requestedNormal + sent.requestedZero;
  expect([sent.total, got.total]).toEqual([count, count]);
  expect(got.precopyZero).toBe(sent.precopyZero);
  expect(got.precopyNormal).toBe(sent.precopyNormal);
  expect(got.missing).toBe(sent.owed);
  expect(pushed + requested).toBe(sent.owed);
  const gotNormal = got.pushedNormal + got.urgentNormal;
  const gotZero = got.pushedZero + got.urgentZero;
  const owed = pushed + requested;
  expect(gotNormal + gotZero).toBeWithin(owed, owed + sent.repeated + 1);
  expect(gotNormal).toBeGreaterThanOrEqual(sent.pushedNormal + sent.requestedNormal);
  expect(gotZero).toBeGreaterThanOrEqual(sent.pushedZero + sent.requestedZero);
  expect(dest.urgentChannel).toBe(source.urgentChannel);
  // Where requests have a channel of their own, exactly their pages came on it.
  const urgent = source.urgentChannel ? requested : 0;
  expect(got.urgentNormal + got.urgentZero).toBeWithin(urgent, urgent + sent.repeated + 1);
  const { received, served, duplicate } = source.requests;
  expect(served + duplicate).toBe(received);
  expect(received).toBeLessThanOrEqual(dest.faults.remote);
}
