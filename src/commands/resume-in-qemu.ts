/**
 * `source --run --resume`: finishes what a killed `--run` began. The journal says which QEMU it had
 * started; that is told to listen again, and gets the pages that it lacks.
 */
import { awaitMigrationEnd, qemuFigures } from "../guests/qemu/migration.ts";
import { WaitingQemu } from "../guests/qemu/waiting.ts";
import type { JournalPeer } from "../journal/entry.ts";
import type { FoundEntry } from "../journal/journal.ts";
import { writeRecord } from "../journal/record.ts";
import { log } from "../util/log.ts";
import { EXIT, PostcopyError } from "../util/errors.ts";
import { startedByShell } from "../util/processes.ts";
import { storedIdentity, unfinishedSends } from "./earlier-sends.ts";
import { settle } from "./journal.ts";
import { CONNECT_PATIENCE_MS } from "./restore-in-qemu.ts";
import type { RestoreContext } from "./restore-in-qemu.ts";
import { SourceRun } from "./run-source.ts";
import { exitCode } from "./source-job.ts";
import { openForQemu } from "./stored-guest.ts";
import type { StoredWord } from "./guest-words.ts";

/** Sends the QEMU of an earlier run of `command` the rest, and leaves it running. */
export async function resumeInQemu(
  context: RestoreContext,
  guest: StoredWord,
  command: string,
): Promise<number> {
  const { journal, options, output } = context;
  if (journal === undefined) throw new Error("a command line without a journal was accepted");
  const identity = storedIdentity(guest);
  const key = { kind: "run", command } as const;
  // One at a time: each is another QEMU, with a guest of its own.
  const replaces = unfinishedSends(journal, identity, key, options, output).slice(-1);
  const peer = startedFor(replaces);
  const record = journal.record(identity, peer, { replaces });
  writeRecord(record, "committing");
  const stored = await openForQemu(guest, options, output);
  const qemu = await WaitingQemu.find(peer.monitor);
  try {
    if (await qemu.missesPages()) {
      const { path, preempt } = await qemu.recover();
      const addresses = [{ family: "unix" as const, path }];
      const route = { kind: "connect" as const, addresses, patienceMs: CONNECT_PATIENCE_MS };
      const run = new SourceRun({
        ...{ ...context, ...stored, peerText: "the QEMU of --run", resume: true },
        destination: { route, preempt },
        // The link is this host's own: it breaks when that QEMU ends, and never comes back.
        options: { ...options, recoverTimeout: 0 },
        ...{ record, noted: true },
      });
      const end = await run.run();
      // What that QEMU makes of it is not known yet.
      if (end.failure === undefined) context.interrupts.exitOnInterrupt();
      const reply = end.failure === undefined ? await awaitMigrationEnd(qemu.qmp) : {};
      const figures = qemuFigures(qemu.qmp.version, reply);
      output.finish({ ...end.report, qemu: figures }, end.observed);
      if (end.failure !== undefined) return exitCode(context, end);
    } else {
      settle(record, output);
    }
    await qemu.release();
  } finally {
    qemu.close();
  }
  const pid = peer.process === null ? "unknown" : startedByShell(peer.process.pid);
  log.info(`The guest is whole in QEMU, process ${pid}`);
  return EXIT.ok;
}

/** The QEMU of this send. */
function startedFor([send]: readonly FoundEntry[]): Extract<JournalPeer, { kind: "run" }> {
  const peer = send?.entry.peer;
  if (peer?.kind === "run") return peer;
  const what = "No QEMU that this command started waits for the rest of the guest";
  throw new PostcopyError("NOT_WAITING", what, { hint: "send the guest, without --resume" });
}
