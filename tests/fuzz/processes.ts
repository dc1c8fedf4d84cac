/**
 * Mutated bytes given to whole processes, as an operator meets them: a destination that a hostile
 * source connects to, a source whose destination says hostile things, and analyze. Each ends with an
 * exit code of the README, and what it says is a sentence, not a stack trace.
 */
import { connect, createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { writeFileSync } from "node:fs";

import { EXIT } from "../../src/util/errors.ts";
import { startDest, NO_RECOVERY } from "../helpers/migration.ts";
import { postcopyCommand, spawn } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";
import { applyEdits, mutate } from "./mutate.ts";
import type { Edit, Material } from "./mutate.ts";
import { Random } from "../helpers/random.ts";

export const PROCESS_KINDS = ["dest", "source", "analyze"] as const;
export type ProcessKind = (typeof PROCESS_KINDS)[number];

/** How a process took its bytes. */
export interface ProcessResult {
  kind: ProcessKind;
  recording: string;
  edits: readonly Edit[];
  exitCode: number | null;
  stderr: string;
  /** What it must not do; undefined where all is well. */
  problem: string | undefined;
}

/** A process may take so long; it is killed then, and that is a failure. */
const LIFE_MS = 120_000;
const EXPECTED: ReadonlySet<number | null> = new Set([EXIT.ok, EXIT.failed, EXIT.host]);

/** Runs the case of a number: every kind in its turn. */
export async function runProcessCase(
  seed: number,
  number: number,
  recordings: readonly Material[],
): Promise<ProcessResult> {
  const random = new Random(seed, number);
  const kind = PROCESS_KINDS[number % PROCESS_KINDS.length] ?? "dest";
  const taken = recordings.filter(({ name }) =>
    kind === "source" ? name.startsWith("back.") : /^stream\.(?!.*(multifd|preempt))/.test(name),
  );
  const material = random.pick(taken);
  const edits = mutate(random, material, [random.pick(taken)]);
  const bytes = applyEdits(material.bytes, edits);
  const { exitCode, stderr } = await RUN[kind](bytes, material);
  const problem = problemOf(exitCode, stderr);
  return { kind, recording: material.name, edits, exitCode, stderr, problem };
}

interface Ended {
  exitCode: number | null;
  stderr: string;
}

function problemOf(exitCode: number | null, stderr: string): string | undefined {
  if (!EXPECTED.has(exitCode)) return `it ended with ${exitCode}`;
  if (/internal error/i.test(stderr)) return "it calls it an internal error";
  if (/^ {2,}at .*[:(]\d+/m.test(stderr)) return "it shows a stack trace";
  if (exitCode !== EXIT.ok && stderr.trim() === "") return "it says nothing";
  return undefined;
}

const RUN: Record<ProcessKind, (bytes: Uint8Array, material: Material) => Promise<Ended>> = {
  dest: async (bytes, { name }) => {
    await using directory = new TemporaryDirectory("hostile");
    const guest = name.includes(".own") ? "stress" : `snapshot:${directory.file("kept")}`;
    await using dest = await startDest({ guest, flags: NO_RECOVERY });
    const [, host = "", port = ""] = dest.peer.split(":");
    const socket = connect({ host, port: Number(port) });
    // It may hang up at any byte.
    socket.on("error", () => {});
    socket.on("data", () => {});
    socket.end(bytes);
    // What does not even begin as a migration is turned away, and the next is waited for.
    socket.on("close", () => again(Number(port)));
    const { exitCode, stderr } = await dest.program.finish();
    return { exitCode, stderr };
  },
  source: async (bytes) => {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.on("data", () => {});
      socket.end(bytes);
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, "127.0.0.1", resolve);
    await promise;
    const to = `tcp:127.0.0.1:${(server.address() as AddressInfo).port}`;
    const guest = "stress:size=1MiB,workers=1,duration=10ms";
    const words = ["--guest", guest, "--to", to, "--switchover", "now", ...NO_RECOVERY];
    const ended = await finished(["source", ...words]);
    server.close();
    return ended;
  },
  analyze: async (bytes) => {
    await using directory = new TemporaryDirectory("hostile");
    writeFileSync(directory.file("stream"), bytes);
    return await finished(["analyze", directory.file("stream")]);
  },
};

/** A stream of which the destination at a port understands nothing, so that it ends. */
function again(port: number): void {
  const socket = connect({ host: "127.0.0.1", port });
  socket.on("error", () => {});
  socket.end(Buffer.from("QEVM\0\0\0\0"));
}

async function finished(words: readonly string[]): Promise<Ended> {
  await using program = spawn(postcopyCommand(...words), { lifeMs: LIFE_MS });
  const { exitCode, stderr } = await program.finish();
  return { exitCode, stderr };
}
