/**
 * `npm run demo`: moves a running 1 GiB guest from one process to another over loopback TCP, with
 * the program's own commands. What they say is shown as they say it; the destination, which has no
 * terminal of its own, speaks when the source has finished.
 *
 *     bun scripts/demo.ts [GUEST]        default: stress:size=1GiB
 */
import { join } from "node:path";

const CLI = join(import.meta.dir, "..", "src", "cli.ts");
const DEFAULT_GUEST = "stress:size=1GiB";
/** Two rounds show precopy at work and leave enough dirty pages for postcopy. */
const SWITCHOVER = "rounds=2";

function command(...words: string[]): string[] {
  return [process.execPath, CLI, ...words];
}

/** Reads the destination's events to their end; tells the address that it listens on. */
async function readEvents(
  stdout: ReadableStream<Uint8Array>,
  listening: (peer: string) => void,
): Promise<void> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const bytes of stdout) {
    text += decoder.decode(bytes, { stream: true });
    const match = /"event":"listening".*?"peer":"([^"]+)"/.exec(text);
    if (match?.[1] === undefined) continue;
    listening(match[1]);
    text = "";
  }
}

/** Runs the demonstration; resolves to the exit code. */
async function demo(guest: string): Promise<number> {
  const listen = ["--listen", "tcp:127.0.0.1:0", "--json"];
  const dest = Bun.spawn(command("dest", "--guest", "stress", ...listen), {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const destSays = new Response(dest.stderr).text();
  const listening = Promise.withResolvers<string>();
  const ended = readEvents(dest.stdout, listening.resolve);
  const peer = await Promise.race([listening.promise, dest.exited]);
  if (typeof peer === "number") {
    process.stderr.write(await destSays);
    return peer;
  }
  // The guest is this demonstration's own, and ends with it.
  const to = ["--to", peer, "--switchover", SWITCHOVER, "--no-journal"];
  const source = Bun.spawn(command("source", "--guest", guest, ...to), {
    stdio: ["ignore", "inherit", "inherit"],
  });
  const sourceCode = await source.exited;
  if (sourceCode !== 0) dest.kill("SIGINT");
  const destCode = await dest.exited;
  await ended;
  process.stderr.write(`\n${await destSays}`);
  return sourceCode === 0 ? destCode : sourceCode;
}

process.exitCode = await demo(process.argv[2] ?? DEFAULT_GUEST);
