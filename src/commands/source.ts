/** `postcopy source`: send a guest. */
import { openSnapshot } from "../guests/snapshot/open.ts";
import { mapBlocks } from "../guests/stress/memory.ts";
import { blockLayout } from "../guests/stress/parameters.ts";
import type { StressParameters } from "../guests/stress/parameters.ts";
import { createStressSetup } from "../guests/stress/setup.ts";
import { StressCrew } from "../threads/stress-crew.ts";
import { errorChain, EXIT } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { formatBytes } from "../util/units.ts";
import { checkCommon, COMMON_FLAGS, openOutput, REPORT_FLAG } from "./common.ts";
import { auditGuest } from "./audit-guest.ts";
import { guestSchema, stressKeysText } from "./guest-words.ts";
import { Interrupts } from "./interrupts.ts";
import { openRoute, peerSchema } from "./peers.ts";
import { SourceRun } from "./run-source.ts";
import type { SourceEnd, SourceJob } from "./run-source.ts";
import { SOURCE_FLAGS } from "./source-flags.ts";
import { defineStrictCommand, requiredFlag } from "./strict.ts";

export const source = defineStrictCommand({
  name: "source",
  description: "Send a guest to a peer by post-copy live migration",
  flags: {
    guest: requiredFlag(guestSchema, {
      valueHint: "GUEST",
      description: "stress[:size=1GiB,workers=2,...] or snapshot:DIRECTORY",
    }),
    to: requiredFlag(peerSchema, {
      valueHint: "PEER",
      description: "tcp:HOST:PORT, unix:PATH, exec:COMMAND or fd:NUMBER",
    }),
    ...SOURCE_FLAGS,
    ...REPORT_FLAG,
    ...COMMON_FLAGS,
  },
  notes: stressKeysText(),
  example: [
    "postcopy dest --guest stress --listen tcp:127.0.0.1:4444 &",
    "postcopy source --guest stress:size=1GiB,rate=200MiB/s --to tcp:127.0.0.1:4444",
  ].join("\n"),
  check: checkCommon,
  run: async (options) => {
    using interrupts = new Interrupts();
    const output = openOutput(options);
    // First, as a wrong address should be found out before a guest has been made.
    const route = await openRoute(options.to, options.insecure, options.connectTimeout);
    const job = { peer: options.to, route, options, output, interrupts };
    if (options.guest.kind === "snapshot") {
      const snapshot = openSnapshot(options.guest.directory);
      const guestText = `snapshot of ${snapshot.machineType} in ${snapshot.directory}`;
      return await sendStored({ ...job, guest: { kind: "snapshot", snapshot }, guestText });
    }
    // Awaited here, as the end of this function is the end of `interrupts`.
    return await sendStress(job, options.guest.parameters);
  },
});

/** A guest that stands still: there is nothing to do for it before or after. */
async function sendStored(job: SourceJob): Promise<number> {
  const end = await new SourceRun(job).run();
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

function exitCode(job: Pick<SourceJob, "interrupts">, end: SourceEnd): number {
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
