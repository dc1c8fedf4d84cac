/** `postcopy source`: send a guest. */
import * as z from "zod";
import { formatPeer } from "../channel/address.ts";
import { checkRunCommand } from "../guests/qemu/launch.ts";
import { mapBlocks } from "../guests/stress/memory.ts";
import { blockLayout } from "../guests/stress/parameters.ts";
import type { StressParameters } from "../guests/stress/parameters.ts";
import { createStressSetup } from "../guests/stress/setup.ts";
import { StressCrew } from "../threads/stress-crew.ts";
import { errorChain, EXIT, UsageError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { bytesSchema } from "../util/schemas.ts";
import { formatBytes } from "../util/units.ts";
import { driveSource } from "./drive-source.ts";
import { checkCommon, COMMON_FLAGS, openOutput, REPORT_FLAG } from "./common.ts";
import { auditGuest } from "./audit-guest.ts";
import { guestSchema, stressKeysText } from "./guest-words.ts";
import { Interrupts } from "./interrupts.ts";
import { restoreInQemu } from "./restore-in-qemu.ts";
import { openRoute, peerSchema } from "./peers.ts";
import { SourceRun } from "./run-source.ts";
import type { SourceEnd, SourceJob } from "./run-source.ts";
import { SOURCE_FLAGS } from "./source-flags.ts";
import { openStoredGuest, recordWorkingSet } from "./stored-guest.ts";
import type { StoredJob } from "./stored-guest.ts";
import { defineStrictCommand, optionalFlag, requiredFlag, switchFlag } from "./strict.ts";
import type { OptionsOf } from "./strict.ts";

const FLAGS = {
  guest: requiredFlag(guestSchema, {
    valueHint: "GUEST",
    description: "stress[:size=1GiB,...], snapshot:DIRECTORY, stream:FILE or qemu:QMP_SOCKET",
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
  "no-record": switchFlag("Do not record which pages the guest asks for"),
  "no-replay": switchFlag("Do not push first what a kept guest asked for the last times"),
  "replay-limit": optionalFlag(bytesSchema, {
    valueHint: "SIZE",
    description: "Most memory that is pushed first, e.g. 256MiB (default: all that was recorded)",
  }),
  ...SOURCE_FLAGS,
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
    const output = openOutput(options);
    const { guest, to, run } = options;
    // Awaited here, as the end of this function is the end of `interrupts`.
    if (run !== undefined && (guest.kind === "snapshot" || guest.kind === "stream")) {
      return await restoreInQemu({ options, output, interrupts }, guest, run);
    }
    if (to === undefined) throw new Error("a command line without a peer was accepted");
    if (guest.kind === "qemu") {
      return await driveSource({ socket: guest.socket, peer: to, options, output, interrupts });
    }
    // First, as a wrong address should be found out before a guest has been made.
    const route = await openRoute(to, options.insecure, options.connectTimeout);
    const destination = { route, preempt: options.preempt };
    const job = { peerText: formatPeer(to), destination, options, output, interrupts };
    if (guest.kind === "stress") return await sendStress(job, guest.parameters);
    const stored = await openStoredGuest(guest, options, output);
    return await sendStored({ ...job, ...stored, resume: options.resume });
  },
});

function checkOptions(options: SourceCommandOptions): void {
  checkCommon(options);
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
  const kept = guest.kind === "snapshot" || guest.kind === "stream";
  if (options.resume && (!kept || run !== undefined)) {
    throw new UsageError("CONTRADICTION", "Flag --resume is for a kept guest, sent with --to", {
      hint: "name it: --guest snapshot:DIRECTORY or stream:FILE",
    });
  }
  if (runLog !== undefined && run === undefined) {
    throw new UsageError("CONTRADICTION", "Flag --run-log is for the QEMU of --run");
  }
  if (run === undefined) return;
  checkRunCommand(run);
  if (kept) return;
  throw new UsageError("CONTRADICTION", "Flag --run is for a guest that was kept", {
    hint: "name it: --guest snapshot:DIRECTORY or stream:FILE",
  });
}

/** A guest that stands still: there is nothing to do for it before or after. */
async function sendStored(job: StoredJob): Promise<number> {
  const end = await new SourceRun(job).run();
  recordWorkingSet(job, end);
  job.output.finish(end.report);
  return exitCode(job, end);
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
  job.output.finish(end.report);
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

/** The exit code of a migration that ended; a failure that nobody asked for is thrown. */
export function exitCode(job: Pick<SourceJob, "interrupts">, end: SourceEnd): number {
  if (end.failure === undefined) return EXIT.ok;
  if (job.interrupts.interrupted) {
    if (end.place === "destination") log.warn(errorChain(end.failure));
    return job.interrupts.exitCode;
  }
  throw end.failure;
}

/** A stress guest in words. */
export function stressText(parameters: StressParameters): string {
  const { size, workers } = parameters;
  return `stress, ${formatBytes(size)}, ${workers} workers`;
}
