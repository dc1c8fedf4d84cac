/** `source --run`: a kept guest runs again in a QEMU that is started for it, by one command. */
import { monotonicNs } from "../../syscalls/process.ts";
import { LaunchedQemu } from "../guests/qemu/launch.ts";
import { awaitMigrationEnd, eventTimeNs, qemuFigures } from "../guests/qemu/migration.ts";
import { statusSchema } from "../qmp/messages.ts";
import type { Journal } from "../journal/journal.ts";
import { writeRecord } from "../journal/record.ts";
import type { MigrateReply } from "../qmp/messages.ts";
import { log } from "../util/log.ts";
import { errorChain, EXIT, PostcopyError } from "../util/errors.ts";
import { processAt } from "../util/processes.ts";
import type { Output } from "./common.ts";
import { storedIdentity, unfinishedSends } from "./earlier-sends.ts";
import type { EarlierSendsOptions } from "./earlier-sends.ts";
import type { Interrupts } from "./interrupts.ts";
import { settle } from "./journal.ts";
import { SourceRun } from "./run-source.ts";
import type { Destination, SourceEnd } from "./source-job.ts";
import { openForQemu, recordWorkingSet } from "./stored-guest.ts";
import type { StoredWord } from "./guest-words.ts";
import type { StoredJob, StoredOptions } from "./stored-guest.ts";
import type { SourceOptions } from "./source-flags.ts";

/** What ends a restore from this side: QEMU then only tells of a link that broke. */
const DAMAGED: ReadonlySet<string> = new Set(["DAMAGED_SNAPSHOT", "DAMAGED_FILE"]);
/** How long a QEMU whose socket is there may take to accept. */
export const CONNECT_PATIENCE_MS = 10_000;

export interface RestoreContext {
  options: SourceOptions &
    StoredOptions &
    EarlierSendsOptions & { json: boolean; runLog: string | undefined };
  journal: Journal | undefined;
  output: Output;
  interrupts: Interrupts;
}

/**
 * Starts `command`, restores the guest in it, and leaves it running. Everything that can be made
 * ready while QEMU starts is: the guest is opened and checked, and the threads are loaded.
 */
export async function restoreInQemu(
  context: RestoreContext,
  guest: StoredWord,
  command: string,
): Promise<number> {
  // What the operator waits for begins here, also where the guest takes longer to open than QEMU.
  const startNs = monotonicNs();
  const { journal, options, output } = context;
  const identity = storedIdentity(guest);
  // None of an earlier send: that of another one would be a second guest on the same disk.
  const peer = { kind: "run", command } as const;
  // Those that --again passes over stay noted as long as their QEMUs live.
  if (journal !== undefined) unfinishedSends(journal, identity, peer, options, output);
  const qemu = new LaunchedQemu(command, options.runLog);
  const launched = { process: processAt(qemu.shellPid) ?? null, monitor: qemu.monitorPath };
  const record = journal?.record(identity, { ...peer, ...launched });
  try {
    // Now, as QEMU takes its time to start: when it is ready, the guest would wait for it.
    if (record !== undefined) writeRecord(record, "committing");
    const destination = listen(qemu);
    // It is awaited in the run; until then a failure is nobody's.
    destination.catch(() => {});
    const stored = await openForQemu(guest, options, output);
    const peerText = "the QEMU of --run";
    // The link is this host's own: it breaks when that QEMU ends, and never comes back.
    const job = { ...context, ...stored, peerText, destination, startNs, record, noted: true };
    return await restore(qemu, { ...job, options: { ...options, recoverTimeout: 0 } });
  } catch (error) {
    // One that has the whole guest is the operator's, whatever else failed.
    if (!qemu.handedOver || qemu.ended) {
      await qemu.kill();
      // Wherever it got to, that ended with the QEMU.
      settle(record, output);
    }
    throw error;
  }
}

/** Waits for the QEMU, and has it listen. */
async function listen(qemu: LaunchedQemu): Promise<Destination> {
  await qemu.ready();
  const { path, preempt, preemptFirst } = await qemu.listen();
  const addresses = [{ family: "unix" as const, path }];
  const route = { kind: "connect" as const, addresses, patienceMs: CONNECT_PATIENCE_MS };
  return { route, preempt, preemptFirst };
}

async function restore(qemu: LaunchedQemu, job: StoredJob): Promise<number> {
  const run = new SourceRun(job);
  const ready = Promise.resolve(job.destination).then(() => {
    qemu.qmp.onEvent((event) => {
      if (event.name === "RESUME") run.noteRunning(eventTimeNs(event));
    });
  });
  ready.catch(() => {});
  const end = await run.run();
  if (end.failure !== undefined) return await fail(qemu, job, end, end.failure);
  qemu.handOver();
  // What that QEMU makes of it is not known yet.
  job.interrupts.exitOnInterrupt();
  const reply = await migrationEnd(qemu, job.output);
  const figures = qemuFigures(qemu.qmp.version, reply ?? {}, qemu.startMs);
  job.output.finish({ ...end.report, qemu: figures }, end.observed);
  if (reply !== undefined && reply.status !== "completed") {
    await qemu.kill();
    const why = reply["error-desc"] ?? `its migration is ${reply.status ?? "none"}`;
    throw new PostcopyError("QEMU_FAILED", `QEMU did not take the guest: ${why}`);
  }
  const state = await qemu.qmp.execute("query-status", {}, statusSchema).then(
    ({ running, status }) => (running ? "running" : status),
    () => "running",
  );
  // One that stands still has not shown what it needs.
  if (state === "running") recordWorkingSet(job, end);
  await qemu.release();
  log.info(whereText(state, qemu.pid));
  return EXIT.ok;
}

/** What the guest does now, and how it goes on where it does nothing. */
function whereText(state: string, pid: number): string {
  if (state === "running") return `The guest runs on in QEMU, process ${pid}`;
  const [what, command] =
    state === "suspended" ? ["suspended, as it was kept,", "system_wakeup"] : ["paused", "cont"];
  return `The guest is whole and ${what} in QEMU, process ${pid}: ${command} at its monitor starts it`;
}

/**
 * What QEMU says when all is there; undefined, with a warning, where it cannot be heard: it has said
 * on the stream that the guest is whole. @throws QemuError when it ends instead.
 */
async function migrationEnd(qemu: LaunchedQemu, output: Output): Promise<MigrateReply | undefined> {
  try {
    return await awaitMigrationEnd(qemu.qmp);
  } catch (error) {
    if (!(error instanceof PostcopyError)) throw error;
    const words = await qemu.explain(error, true);
    if (qemu.ended) throw words ?? error;
    output.warn("QEMU_SILENT", `QEMU has the guest, and is left alone: ${errorChain(error)}`);
    return undefined;
  }
}

/** The QEMU has no whole guest: it is ended, and its own words say why, where it knows. */
async function fail(
  qemu: LaunchedQemu,
  job: StoredJob,
  { report, observed, place }: SourceEnd,
  failure: PostcopyError,
): Promise<number> {
  const { interrupts, output } = job;
  const ran = place === "destination";
  const isOurs = interrupts.interrupted || isDamaged(failure);
  const here = ran ? withoutQemu(failure) : failure;
  const why = (isOurs ? undefined : await qemu.explain(here, ran)) ?? here;
  const started = qemu.startMs !== null;
  const figures = started ? qemuFigures(qemu.qmp.version, {}, qemu.startMs) : null;
  const error = { code: why.code, message: errorChain(why) };
  output.finish({ ...report, qemu: figures, error }, observed);
  await qemu.kill();
  settle(job.record, output);
  if (interrupts.interrupted) return interrupts.exitCode;
  throw why;
}

/** What a failure comes to where the QEMU ends with it: nobody is left who waits for the rest. */
function withoutQemu(failure: PostcopyError): PostcopyError {
  let last: Error = failure;
  while (last.cause instanceof Error) last = last.cause;
  const code = last instanceof PostcopyError ? last.code : "INTERNAL";
  const what = "The guest was not brought back, and its QEMU was ended; what was kept is as it was";
  const again = "the same command begins anew, in another QEMU";
  return new PostcopyError(failure.code, what, {
    cause: new PostcopyError(code, last.message),
    hint: isDamaged(failure)
      ? `put the file right first (of a snapshot, analyze --verify names all that is damaged); then ${again}`
      : again,
  });
}

/** Whether what was kept is damaged. */
function isDamaged(failure: Error): boolean {
  if (failure instanceof PostcopyError && DAMAGED.has(failure.code)) return true;
  return failure.cause instanceof Error && isDamaged(failure.cause);
}
