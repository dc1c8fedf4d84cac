/** `source --run`: a kept guest runs again in a QEMU that is started for it, by one command. */
import { monotonicNs } from "../../syscalls/process.ts";
import { LaunchedQemu } from "../guests/qemu/launch.ts";
import { awaitMigrationEnd, eventTimeNs, qemuFigures } from "../guests/qemu/migration.ts";
import { statusSchema } from "../qmp/messages.ts";
import type { MigrateReply } from "../qmp/messages.ts";
import { log } from "../util/log.ts";
import { errorChain, EXIT, PostcopyError } from "../util/errors.ts";
import type { Output } from "./common.ts";
import type { Interrupts } from "./interrupts.ts";
import { SourceRun } from "./run-source.ts";
import type { Destination, SourceEnd } from "./run-source.ts";
import { openStoredGuest, recordWorkingSet } from "./stored-guest.ts";
import type { StoredJob, StoredOptions, StoredWord } from "./stored-guest.ts";
import type { SourceOptions } from "./source-flags.ts";

/** What ends a restore from this side: QEMU then only tells of a link that broke. */
const DAMAGED: ReadonlySet<string> = new Set(["DAMAGED_SNAPSHOT", "DAMAGED_FILE"]);
/** How long a QEMU whose socket is there may take to accept. */
const CONNECT_PATIENCE_MS = 10_000;

interface RestoreContext {
  options: SourceOptions & StoredOptions & { json: boolean; runLog: string | undefined };
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
  const qemu = new LaunchedQemu(command, context.options.runLog);
  try {
    const destination = listen(qemu);
    // It is awaited in the run; until then a failure is nobody's.
    destination.catch(() => {});
    const stored = await openStoredGuest(guest, context.options, context.output);
    const peerText = "the QEMU of --run";
    // The link is this host's own: it breaks when that QEMU ends, and never comes back.
    const options = { ...context.options, recoverTimeout: 0 };
    const job = { ...context, ...stored, options, peerText, destination, startNs };
    return await restore(qemu, job);
  } catch (error) {
    // One that has the whole guest is the operator's, whatever else failed.
    if (!qemu.handedOver || qemu.ended) await qemu.kill();
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
  const reply = await migrationEnd(qemu, job.output);
  recordWorkingSet(job, end);
  const figures = qemuFigures(qemu.qmp.version, reply ?? {}, qemu.startMs);
  job.output.finish({ ...end.report, qemu: figures });
  if (reply !== undefined && reply.status !== "completed") {
    await qemu.kill();
    const why = reply["error-desc"] ?? `its migration is ${reply.status ?? "none"}`;
    throw new PostcopyError("QEMU_FAILED", `QEMU did not take the guest: ${why}`);
  }
  const runs = await qemu.qmp.execute("query-status", {}, statusSchema).then(
    ({ running }) => running,
    () => true,
  );
  await qemu.release();
  log.info(
    runs
      ? `The guest runs on in QEMU, process ${qemu.pid}`
      : `The guest is whole and paused in QEMU, process ${qemu.pid}: cont at its monitor starts it`,
  );
  return EXIT.ok;
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
  { report, place }: SourceEnd,
  failure: Error,
): Promise<number> {
  const { interrupts, output } = job;
  const ran = place === "destination";
  const isOurs = interrupts.interrupted || isDamaged(failure);
  const words = isOurs ? undefined : await qemu.explain(failure, ran);
  const started = qemu.startMs !== null;
  const figures = started ? qemuFigures(qemu.qmp.version, {}, qemu.startMs) : null;
  output.finish({ ...report, qemu: figures });
  await qemu.kill();
  if (interrupts.interrupted) return interrupts.exitCode;
  throw words ?? failure;
}

/** Whether what was kept is damaged. */
function isDamaged(failure: Error): boolean {
  if (failure instanceof PostcopyError && DAMAGED.has(failure.code)) return true;
  return failure.cause instanceof Error && isDamaged(failure.cause);
}
