/** `postcopy dest`: receive a guest, and run it, keep it, or send it on. */
import { resolvePeer } from "../channel/address.ts";
import { readArrival } from "../guests/snapshot/arrival-file.ts";
import { prepareDirectory, reopenDirectory } from "../guests/snapshot/directory.ts";
import { readManifest } from "../guests/snapshot/manifest.ts";
import { isMemoryOnly } from "../guests/stored/memory-only.ts";
import { STRESS_MACHINE } from "../guests/stress/machine.ts";
import type { DestGuestData } from "../guests/registry.ts";
import { keeperSchema } from "./keeper-word.ts";
import { readCredentials } from "../tls/credentials.ts";
import { EXIT, UsageError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { choiceSchema, durationSchema } from "../util/schemas.ts";
import { shellLine } from "../util/shell.ts";
import { PROGRAM } from "../util/version.ts";
import { mlockall } from "../../syscalls/memory.ts";
import { driveDest } from "./drive-dest.ts";
import { checkCommon, COMMON_FLAGS, openOutput, REPORT_FLAG } from "./common.ts";
import type { Output } from "./common.ts";
import { fillVmm, openFeed } from "./fill-vmm.ts";
import { checkFrom } from "./from-flag.ts";
import { guestSchema, isStored, stressText } from "./guest-words.ts";
import type { GuestWord } from "./guest-words.ts";
import { Interrupts } from "./interrupts.ts";
import { checkJournal, JOURNAL_FLAGS, openJournal } from "./journal.ts";
import { runHere, sendOn } from "./onward.ts";
import { OwnSource } from "./own-source.ts";
import { peerSchema } from "./peers.ts";
import { DestRun } from "./run-dest.ts";
import { ALLOW_FLAG, checkAllow, checkSecurity } from "./security.ts";
import { RECOVER_TIMEOUT_MS, SOURCE_FLAGS } from "./source-flags.ts";
import { ON_FAILURE } from "./vmm-fate.ts";
import { STORED_FLAGS } from "./stored-guest.ts";
import { defineStrictCommand, optionalFlag, requiredFlag, switchFlag } from "./strict.ts";
import type { OptionsOf } from "./strict.ts";

const FLAGS = {
  guest: requiredFlag(guestSchema, {
    valueHint: "GUEST",
    description:
      "stress (run it here), snapshot:DIRECTORY (keep it), qemu:QMP_SOCKET or uffd:SOCKET",
  }),
  listen: optionalFlag(peerSchema, {
    valueHint: "PEER",
    description: "tcp:HOST:PORT (port 0: any), unix:PATH, exec:COMMAND or fd:NUMBER",
  }),
  from: optionalFlag(guestSchema, {
    valueHint: "GUEST",
    description: "Fill a VMM's memory (uffd:SOCKET) from these files, without a source",
  }),
  ...STORED_FLAGS,
  onward: optionalFlag(peerSchema, {
    valueHint: "PEER",
    description: "Send the guest on there once it is whole; the flags below say how",
  }),
  resume: switchFlag("A dest that ended took a part of this guest to keep: take the rest"),
  "on-failure": optionalFlag(choiceSchema(ON_FAILURE), {
    valueHint: "WHAT",
    description:
      "A VMM whose memory cannot be filled: kill it (the default), or freeze: leave it where it stands",
  }),
  "keep-fd": optionalFlag(keeperSchema, {
    valueHint: "KEEPER",
    description:
      "Who keeps a VMM's userfaultfd, should this process be killed: holder:SOCKET or systemd",
  }),
  mlock: switchFlag("Lock this process's memory, except during postcopy"),
  ...ALLOW_FLAG,
  ...SOURCE_FLAGS,
  "recover-timeout": optionalFlag(durationSchema, {
    valueHint: "DURATION",
    description: "How long to wait for the source when the link breaks (default: for ever)",
  }),
  ...JOURNAL_FLAGS,
  ...REPORT_FLAG,
  ...COMMON_FLAGS,
} as const;

type DestOptions = OptionsOf<typeof FLAGS>;
/** A guest that this process receives itself. */
type ReceivedGuest = Exclude<GuestWord, { kind: "qemu" | "uffd" }>;

export const dest = defineStrictCommand({
  name: "dest",
  description: "Receive a guest, and run it, keep it or send it on",
  flags: FLAGS,
  notes:
    "How a guest is sent (--switchover to --connect-timeout) is for --onward; for guest uffd it is the\n" +
    "source's to say, or with --from without --preempt and --connect-timeout.",
  example: [
    "postcopy dest --guest snapshot:/var/lib/vm1 --listen tcp:127.0.0.1:4444",
    "postcopy dest --guest stress --listen tcp:127.0.0.1:4444 --onward tcp:127.0.0.1:5555",
    "postcopy dest --guest uffd:/run/vm1/uffd.sock --from firecracker:vm.mem,vm.diff",
  ].join("\n"),
  check: (options, given) => {
    checkCommon(options);
    checkJournal(options);
    if (options.guest.kind === "uffd") checkFilling(options);
    else checkNoFilling(options);
    const { guest, listen, onward } = options;
    checkFrom(options, given);
    checkSecurity(options, listen, onward);
    checkAllow(options.allow, listen, guest.kind === "qemu");
    if (onward === undefined || guest.kind === "stress") return;
    throw new UsageError("CONTRADICTION", "Flag --onward is for a guest that runs here", {
      hint: "a snapshot is sent on with: postcopy source --guest snapshot:DIRECTORY --to PEER",
    });
  },
  run: receive,
});

/** Of a VMM that is filled what is resumed is what somebody kept. */
function checkFilling({ resume, keepFd, listen, from }: DestOptions): void {
  if (!resume || (keepFd !== undefined && (from !== undefined || listens(listen)))) return;
  const message = "Flag --resume is for a VMM whose userfaultfd was kept: it needs --keep-fd too";
  const hint = "as before, and --keep-fd KEEPER --resume; a source must be able to connect again";
  throw new UsageError("CONTRADICTION", message, { hint });
}

function checkNoFilling({ resume, onFailure, keepFd, guest, listen }: DestOptions): void {
  if (onFailure !== undefined || keepFd !== undefined) {
    const flag = keepFd === undefined ? "--on-failure" : "--keep-fd";
    throw new UsageError("CONTRADICTION", `Flag ${flag} is for guest uffd`, {
      hint: `postcopy dest --guest uffd:SOCKET --listen PEER ${flag} ...`,
    });
  }
  if (resume) checkResume({ guest, listen });
}

function listens(listen: DestOptions["listen"]): boolean {
  return listen?.kind === "tcp" || listen?.kind === "unix";
}

/** What is resumed comes over a link that the source, which knows of a broken one, makes anew. */
function checkResume({ guest, listen }: Pick<DestOptions, "guest" | "listen">): void {
  if (guest.kind === "snapshot" && listens(listen)) return;
  const message = "Flag --resume is for a guest that is kept, and for a source that connects";
  const hint = "postcopy dest --guest snapshot:DIRECTORY --listen tcp:HOST:PORT --resume";
  throw new UsageError("CONTRADICTION", message, { hint });
}

/** The guest that is expected, and what to do before anybody connects. */
function prepare(
  word: ReceivedGuest,
  resume: boolean,
  output: Output,
): { guest: DestGuestData; text: string } {
  if (word.kind === "stress") {
    const expected = word.given ? word.parameters : undefined;
    const text = expected === undefined ? "stress" : stressText(expected);
    return { guest: { kind: "stress", expected }, text };
  }
  if (word.kind === "stream" || word.kind === "firecracker") {
    throw new UsageError("CONTRADICTION", `Guest ${word.kind} is a file that is sent, by source`, {
      hint: "an arriving guest is kept with --guest snapshot:DIRECTORY",
    });
  }
  const { directory } = word;
  const guest: DestGuestData = { kind: "snapshot", directory, takenOver: undefined };
  if (resume) {
    reopenDirectory(directory);
    guest.takenOver = readArrival(directory);
    log.info(`Looking through what is in ${directory} already`);
  } else if (prepareDirectory(directory) === "half a guest") {
    output.warn("HALF_SNAPSHOT", `${directory} held part of a guest; it was removed`);
  }
  return { guest, text: `snapshot in ${directory}` };
}

async function receive(options: DestOptions): Promise<number> {
  using interrupts = new Interrupts();
  const output = await openOutput(options);
  const { listen, onward, insecure, tls } = options;
  if (options.guest.kind === "uffd") {
    if (options.mlock) mlockall();
    return await receiveIntoVmm(options.guest.socket, options, output, interrupts);
  }
  if (listen === undefined) throw new Error("a command line without a peer was accepted");
  if (options.guest.kind === "qemu") {
    const { socket } = options.guest;
    return await driveDest({ socket, peer: listen, options, output, interrupts });
  }
  // A way onward that is barred is better found before a guest is here than after.
  if (onward?.kind === "tcp") await resolvePeer(onward, insecure || tls !== undefined);
  if (onward !== undefined && tls !== undefined) readCredentials(tls, "client");
  const journal = onward === undefined ? undefined : openJournal(options);
  const { guest, text } = prepare(options.guest, options.resume, output);
  if (options.mlock) mlockall();
  const run = await DestRun.open({
    ...{ guest, guestText: text, peer: listen, output, interrupts },
    ...waits(options),
  });
  try {
    await run.receive();
  } catch (error) {
    if (error instanceof Error) output.finish(run.report(null, error), run.observed);
    run.sayWhere();
    if (interrupts.interrupted) return interrupts.exitCode;
    throw error;
  }
  if (run.stress === undefined) {
    output.finish(run.report(null, undefined), run.observed);
    if (guest.kind === "snapshot") {
      const { directory } = guest;
      log.info(`Bring it back: ${bringBack(directory)}`);
    }
    return EXIT.ok;
  }
  // Awaited here, as the end of this function is the end of `interrupts`.
  return onward === undefined
    ? await runHere(run, output, interrupts)
    : await sendOn({ run, onward, options, journal, output, interrupts });
}

/** What a run needs to know of the flags. */
function waits(options: DestOptions) {
  return {
    security: options,
    lockMemory: options.mlock,
    recoverTimeoutMs: options.recoverTimeout ?? Infinity,
    linkTimeoutMs: options.linkTimeout,
    channels: options.channels.count,
  };
}

/** Fills the memory of a VMM that hands it over at `socket`, from a source or from files. */
async function receiveIntoVmm(
  socket: string,
  options: DestOptions,
  output: Output,
  interrupts: Interrupts,
): Promise<number> {
  const { listen, from, recoverTimeout = RECOVER_TIMEOUT_MS } = options;
  const { onFailure = "kill", keepFd: keeper, resume } = options;
  const successor = successorOf(options);
  const job = {
    ...{ socket, ...waits(options), output, interrupts },
    ...{ onFailure, keeper, resume, successor },
    keeperPatienceMs: options.connectTimeout,
  };
  if (listen !== undefined) {
    const feed = await openFeed(listen, options, output);
    return await fillVmm({ ...job, feed });
  }
  if (from === undefined || !isStored(from)) throw new Error("a VMM without pages was accepted");
  const feed = await OwnSource.open(from, { ...options, recoverTimeout }, output);
  // Nobody comes back over a link within this process, unless it begins with one.
  return await fillVmm({ ...job, feed, recoverTimeoutMs: resume ? options.linkTimeout : 0 });
}

/** The command that goes on where this process ends, if somebody keeps the VMM's userfaultfd. */
function successorOf({ listen, from, keepFd }: DestOptions): string | undefined {
  if (keepFd === undefined) return undefined;
  const words = process.argv.slice(2).filter((word) => word !== "--resume");
  const command = shellLine([PROGRAM, ...words, "--resume"]);
  if (from === undefined && !listens(listen)) {
    return `${command} (and, in place of this --listen, one of tcp: or unix:)`;
  }
  return keepFd.kind === "systemd" ? `the service, started again as: ${command}` : command;
}

/** How a guest that was kept runs again. */
function bringBack(directory: string): string {
  const { machineType } = readManifest(directory);
  const sender = `postcopy source --guest snapshot:${directory}`;
  if (machineType === STRESS_MACHINE) return `${sender} --to PEER (of dest --guest stress)`;
  return isMemoryOnly(machineType)
    ? `postcopy dest --guest uffd:SOCKET --from snapshot:${directory}`
    : `${sender} --run "qemu-system-x86_64 ..."`;
}
