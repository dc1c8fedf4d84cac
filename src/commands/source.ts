/** `postcopy source`: send a guest. */
import * as z from "zod";
import { formatPeer } from "../channel/address.ts";
import { checkRunCommand } from "../guests/qemu/launch.ts";
import { mapBlocks } from "../guests/stress/memory.ts";
import { blockLayout } from "../guests/stress/parameters.ts";
import type { StressParameters } from "../guests/stress/parameters.ts";
import { createStressSetup } from "../guests/stress/setup.ts";
import { fewerText } from "../source/fewer-channels.ts";
import { StressCrew } from "../threads/stress-crew.ts";
import { UsageError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { formatBytes } from "../util/units.ts";
import { driveSource } from "./drive-source.ts";
import { checkCommon, COMMON_FLAGS, openOutput, REPORT_FLAG } from "./common.ts";
import { auditGuest } from "./audit-guest.ts";
import { isMemoryAlone, storedIdentity, unfinishedSends } from "./earlier-sends.ts";
import { guestSchema, isStored, stressKeysText, stressText } from "./guest-words.ts";
import { Interrupts } from "./interrupts.ts";
import { checkJournal, forget, JOURNAL_FLAGS, openJournal } from "./journal.ts";
import { restoreInQemu } from "./restore-in-qemu.ts";
import { resumeInQemu } from "./resume-in-qemu.ts";
import { openRoute, peerSchema } from "./peers.ts";
import { SourceRun } from "./run-source.ts";
import { exitCode, sayNobodyResumes, sayWaiting } from "./source-job.ts";
import type { SourceEnd, SourceJob } from "./source-job.ts";
import { checkSecurity } from "./security.ts";
import { SOURCE_FLAGS } from "./source-flags.ts";
import { openStoredGuest, recordWorkingSet, STORED_FLAGS } from "./stored-guest.ts";
import type { StoredJob } from "./stored-guest.ts";
import { defineStrictCommand, optionalFlag, requiredFlag, switchFlag } from "./strict.ts";
import type { OptionsOf } from "./strict.ts";

const FLAGS = {
  guest: requiredFlag(guestSchema, {
    valueHint: "GUEST",
    description:
      "stress[:size=1GiB,...], snapshot:DIRECTORY, stream:FILE, firecracker:FILE[,DIFF...] or " +
      "qemu:QMP_SOCKET",
  }),
  to: optionalFlag(peerSchema, {
    valueHint: "PEER",
    description: "tcp:HOST:PORT, unix:PATH, exec:COMMAND or fd:NUMBER",
  }),
  run: optionalFlag(z.string().min(1), {
    valueHint: "COMMAND",
    description: "Start this QEMU, restore a kept guest in it, and leave it running",
  }),
  "run-log": optionalFlag(z.string().min(1), {
    valueHint: "FILE",
    description: "Where the QEMU of --run prints (default: shown only if it fails)",
  }),
  keep: switchFlag("A QEMU whose guest was kept by the peer goes on running it here"),
  resume: switchFlag("The destination has a part of this kept guest: send it the rest"),
  again: switchFlag("Send it although an earlier send was never finished, or it has moved"),
  ...STORED_FLAGS,
  ...SOURCE_FLAGS,
  ...JOURNAL_FLAGS,
  ...REPORT_FLAG,
  ...COMMON_FLAGS,
} as const;

export type SourceCommandOptions = OptionsOf<typeof FLAGS>;

export const source = defineStrictCommand({
  name: "source",
  description: "Send a guest to a peer by post-copy live migration",
  flags: FLAGS,
  notes: stressKeysText(),
  example: [
    "postcopy source --guest stress:size=1GiB,rate=200MiB/s --to tcp:127.0.0.1:4444",
    "postcopy source --guest snapshot:/var/lib/vm1 --run 'qemu-system-x86_64 -m 1G ...'",
  ].join("\n"),
  check: checkOptions,
  run: async (options) => {
    using interrupts = new Interrupts();
    const output = await openOutput(options);
    const { guest, to, run } = options;
    const journal = openJournal(options);
    // Awaited here, as the end of this function is the end of `interrupts`.
    if (run !== undefined && isStored(guest)) {
      const context = { options, output, interrupts, journal };
      return options.resume
        ? await resumeInQemu(context, guest, run)
        : await restoreInQemu(context, guest, run);
    }
    if (to === undefined) throw new Error("a command line without a peer was accepted");
    if (guest.kind === "qemu") {
      const { socket } = guest;
      const { count, named } = options.channels;
      if (named && count > 1) {
        output.warn("SOURCE_WARNING", fewerText(1, count, "QEMU sends the guest itself"));
      }
      return await driveSource({ socket, peer: to, options, journal, output, interrupts });
    }
    if (guest.kind === "uffd") {
      throw new UsageError("CONTRADICTION", "Guest uffd is a VMM whose memory is filled, by dest", {
        hint: "what a VMM has saved is sent with --guest firecracker:FILE",
      });
    }
    // First, as a wrong address should be found out before a guest has been made.
    const peerText = formatPeer(to);
    // Who is to take the rest may have to be told first.
    const { resume } = options;
    const patienceMs = options.connectTimeout + (resume ? options.recoverTimeout : 0);
    const waiting = resume
      ? () => sayNobodyResumes(peerText, patienceMs, takesQemu(guest), output)
      : () => sayWaiting(peerText, options);
    const patient = { ...options, connectTimeout: patienceMs };
    const { route, bridge } = await openRoute(to, patient, waiting);
    const destination = { route, preempt: options.preempt, bridge };
    const peer = { kind: "address", text: peerText } as const;
    const job = { peerText, destination, waiting, options, output, interrupts };
    if (guest.kind === "stress") {
      const record = journal?.record({ kind: "stress" }, peer);
      return await sendStress({ ...job, record }, guest.parameters);
    }
    const identity = storedIdentity(guest);
    const asked = { ...options, memoryAlone: isMemoryAlone(guest) };
    const earlier = (journal && unfinishedSends(journal, identity, peer, asked, output)) ?? [];
    const record = journal?.record(identity, peer, { replaces: resume ? earlier : [] });
    const stored = await openStoredGuest(guest, options, output);
    const end = await sendStored({ ...job, ...stored, resume, record });
    // Whoever listens there now has the whole guest, or said that the one it had is no more.
    const isOver = end.failure === undefined || (resume && end.place === "source");
    if (isOver && journal !== undefined) forget(journal, earlier, output);
    return exitCode(job, end);
  },
});

function checkOptions(options: SourceCommandOptions): void {
  checkCommon(options);
  checkJournal(options);
  const { guest, to, run, runLog } = options;
  if ((to === undefined) === (run === undefined)) {
    throw new UsageError(
      to === undefined ? "MISSING_FLAG" : "CONTRADICTION",
      to === undefined ? "Flag --to is missing" : "Flags --to and --run contradict each other",
      { hint: "say where the guest goes: --to PEER, or --run COMMAND for a QEMU started here" },
    );
  }
  if (options.keep && guest.kind !== "qemu") {
    throw new UsageError("CONTRADICTION", "Flag --keep is for a running QEMU (qemu:QMP_SOCKET)");
  }
  if (options.resume && !isStored(guest)) {
    throw new UsageError("CONTRADICTION", "Flag --resume is for a kept guest", {
      hint: "name it: --guest snapshot:DIRECTORY, stream:FILE or firecracker:FILE",
    });
  }
  checkSecurity(options, undefined, to);
  if (options.resume && options.again) {
    throw new UsageError("CONTRADICTION", "Flags --resume and --again contradict each other");
  }
  if (run !== undefined) checkRun(options, run);
  else if (runLog !== undefined) {
    throw new UsageError("CONTRADICTION", "Flag --run-log is for the QEMU of --run");
  }
}

/** What is restored in a QEMU that is started here has been kept by one. */
function checkRun({ guest, resume, noJournal, tls }: SourceCommandOptions, run: string): void {
  if (tls !== undefined) {
    throw new UsageError("CONTRADICTION", "Flag --tls is not for --run", {
      hint: "leave it out: that QEMU is reached by a socket that only you can open",
    });
  }
  if (resume && noJournal) {
    throw new UsageError("CONTRADICTION", "Flag --resume finds the QEMU of --run by the journal", {
      hint: "leave --no-journal out; where none was kept, end that QEMU and restore the guest anew",
    });
  }
  checkRunCommand(run);
  if (guest.kind === "firecracker") {
    throw new UsageError(
      "CONTRADICTION",
      "Flag --run is for a QEMU, and the guest is Firecracker's",
      {
        hint: "its memory goes to a VMM by: postcopy dest --guest uffd:SOCKET",
      },
    );
  }
  if (isStored(guest)) return;
  throw new UsageError("CONTRADICTION", "Flag --run is for a guest that was kept", {
    hint: "name it: --guest snapshot:DIRECTORY or stream:FILE",
  });
}

/** Whether a QEMU may be at the other end. */
function takesQemu(guest: SourceCommandOptions["guest"]): boolean {
  return isStored(guest) && !isMemoryAlone(guest);
}

/** A guest that stands still: there is nothing to do for it before or after. */
async function sendStored(job: StoredJob): Promise<SourceEnd> {
  const end = await new SourceRun(job).run();
  recordWorkingSet(job, end);
  job.output.finish(end.report, end.observed);
  return end;
}

/** A stress guest is born here, runs while it is sent, and runs on here if that fails. */
async function sendStress(
  job: Omit<SourceJob, "guest" | "guestText">,
  parameters: StressParameters,
): Promise<number> {
  const plans = blockLayout(parameters).map((plan) => ({ ...plan, pageSize: parameters.pageSize }));
  const blocks = mapBlocks(plans);
  const setup = createStressSetup(parameters, [...blocks]);
  const crew = new StressCrew(setup);
  log.info(`Filling the memory of a stress guest of ${formatBytes(parameters.size)}`);
  await crew.populated();
  crew.control.resume();
  const guestText = stressText(parameters);
  const run = new SourceRun({ ...job, guest: { kind: "stress", setup, blocks }, guestText });
  const end = await run.run();
  if (end.failure !== undefined && end.place === "source") await runOnHere(job, crew);
  await crew.stop();
  crew.end();
  job.output.finish(end.report, end.observed);
  return exitCode(job, end);
}

/** The migration failed, the guest did not: shows that it goes on, and that it is whole. */
async function runOnHere(
  job: Omit<SourceJob, "guest" | "guestText">,
  crew: StressCrew,
): Promise<void> {
  log.info("The guest goes on here");
  const before = crew.control.totals().operations;
  await crew.runFor(crew.setup.parameters.durationMs, () => false);
  await crew.stop();
  const operations = crew.control.totals().operations - before;
  const audit = await auditGuest(crew);
  log.info(
    `The guest that stayed: ${operations} operations since, checked ${audit.pagesChecked} pages, ` +
      `${audit.pagesWrong} wrong`,
  );
  job.output.events.emit({ event: "stayed", operations, ...audit });
}
