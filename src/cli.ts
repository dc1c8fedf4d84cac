#!/usr/bin/env bun
/** The router: which commands there are. Each is loaded only when it is used. */
import { main, reportError } from "./commands/main.ts";
import type { Program } from "./commands/main.ts";
import { PROGRAM, VERSION } from "./util/version.ts";

const program: Program = {
  name: PROGRAM,
  version: VERSION,
  description: "Moves a running guest by post-copy live migration, over QEMU's own wire format",
  commands: {
    source: {
      summary: "Send a guest",
      load: async () => (await import("./commands/source.ts")).source,
    },
    dest: {
      summary: "Receive a guest, and run or keep it",
      load: async () => (await import("./commands/dest.ts")).dest,
    },
    analyze: {
      summary: "What is in a migration stream, a saved guest or a snapshot",
      load: async () => (await import("./commands/analyze.ts")).analyze,
    },
    hold: {
      summary: "Keep a VMM's userfaultfd, in case that its dest is killed",
      load: async () => (await import("./commands/hold.ts")).hold,
    },
    journal: {
      summary: "Which guests were handed over from this host, and how one is forgotten",
      load: async () => (await import("./commands/journal-command.ts")).journal,
    },
    keygen: {
      summary: "Make the certificates that --tls needs",
      load: async () => (await import("./commands/keygen.ts")).keygen,
    },
    check: {
      summary: "What this host's kernel allows, and how to allow more",
      load: async () => (await import("./commands/check.ts")).check,
    },
    bench: {
      summary: "Measure this program on this machine",
      load: async () => (await import("./commands/bench.ts")).bench,
    },
  },
  example: [
    "postcopy dest --guest stress --listen tcp:127.0.0.1:4444 &",
    "postcopy source --guest stress:size=1GiB --to tcp:127.0.0.1:4444",
  ].join("\n"),
};

const argv = process.argv.slice(2);

// What nobody caught is this program's mistake, but it is reported like any error, also as JSON.
for (const event of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(event, (thrown: unknown) => process.exit(reportError(program, argv, thrown)));
}

// Exit at once: a worker that is blocked in a system call would keep the process alive.
process.exit(await main(program, argv));
