/** What a move shows: events, a report as a file, lines in a log, a line on a terminal. */
import { expect } from "bun:test";
import { mkdirSync, readdirSync } from "node:fs";

import { reportSchema } from "../../src/report/report.ts";
import { expectMoved, move, pages, startDest, startSource } from "../helpers/migration.ts";
import type { Need } from "../helpers/need.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { postcopyCommand, run } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");
/** A move of more than two seconds, as plain progress is shown once a second. */
const SLOW_GUEST = "stress:size=16MiB,zero=0,duration=100ms";
const SLOW = ["--switchover", "rounds=1", "--max-bandwidth", "8MiB/s"] as const;

/** The names of events in their order, without those that come now and then. */
function story(events: readonly { event: string; phase?: string }[]): string[] {
  return events
    .filter(({ event }) => event !== "progress")
    .map(({ event, phase }) => (event === "phase" ? `phase ${phase}` : event));
}

migrationTest("--json tells the whole story in its order", async () => {
  const { source, dest } = await move({ guest: SLOW_GUEST, sourceFlags: SLOW });
  expectMoved(source, dest, COUNT);
  expect(story(source.events)).toEqual([
    "connected",
    "guest",
    "phase precopy",
    "round",
    "channels",
    "switchover",
    "phase device",
    "phase postcopy",
    "report",
  ]);
  expect(story(dest.events)).toEqual([
    "listening",
    "connected",
    "phase precopy",
    "guest",
    "channels",
    "phase device",
    "running",
    "phase postcopy",
    "phase drained",
    "drained",
    "report",
  ]);
  for (const { events, report } of [source, dest]) {
    const { urgentChannel, pushChannels } = report;
    expect(events).toContainEqual(
      expect.objectContaining({ event: "channels", urgentChannel, pushChannels }),
    );
  }
  const progress = source.events.filter((event) => event.event === "progress");
  // Two seconds of it, of which a busy machine may swallow some; and the last one.
  expect(progress.length).toBeGreaterThanOrEqual(2);
  expect(progress.at(-1)).toMatchObject({ phase: "completed", percent: 100, remainingPages: 0 });
});

migrationTest("--report writes what the report event says", async () => {
  await using directory = new TemporaryDirectory("report");
  const files = [directory.file("source.json"), directory.file("dest.json")] as const;
  const { source, dest } = await move({
    sourceFlags: ["--switchover", "rounds=1", "--report", files[0]],
    destFlags: ["--report", files[1]],
  });
  expectMoved(source, dest, COUNT);
  const [sent, got] = await Promise.all(files.map(async (file) => Bun.file(file).json()));
  expect(reportSchema.parse(sent)).toEqual(source.report);
  expect(reportSchema.parse(got)).toEqual(dest.report);
  expect([...new Bun.Glob("*").scanSync(directory.path)].sort()).toEqual([
    "dest.json",
    "source.json",
  ]);
});

migrationTest("--report of a move that failed is written too", async () => {
  await using directory = new TemporaryDirectory("report");
  const file = directory.file("failed.json");
  const flags = ["--report", file, "--connect-timeout", "0ms"];
  await using source = startSource({ to: `unix:${directory.file("nobody")}`, flags });
  expect((await source.end()).exitCode).toBe(1);
  expect(reportSchema.parse(await Bun.file(file).json())).toMatchObject({
    role: "source",
    outcome: "failed",
    phase: "setup",
    error: { code: "CANNOT_CONNECT" },
  });
});

migrationTest("--report that cannot be written is a warning: the guest has moved", async () => {
  await using directory = new TemporaryDirectory("report");
  // A directory stands where the file is to be, which only shows when it is put there.
  const file = directory.file("taken");
  mkdirSync(file);
  const { source, dest } = await move({ sourceFlags: ["--report", file] });
  expectMoved(source, dest, COUNT);
  const warning = source.events.find((event) => event.event === "warning");
  expect(warning).toMatchObject({ code: "REPORT_NOT_WRITTEN" });
  expect(readdirSync(directory.path)).toEqual(["taken"]);
});

/** The words of a source as people start it: no --json. */
function plainSource(peer: string): string[] {
  return postcopyCommand("source", "--guest", SLOW_GUEST, "--to", peer, ...SLOW);
}

migrationTest("in a log: whole plain lines, now and then, and the report", async () => {
  await using dest = await startDest();
  const { exitCode, stdout, stderr } = await run(plainSource(dest.peer));
  expect(exitCode).toBe(0);
  expect(stdout).toBe("");
  expect(stderr).toBe(showEscapes(stderr));
  const lines = stderr.split("\n");
  const progress = lines.filter((line) => /^precopy round 1: \d+ %, .* at .*\/s, /.test(line));
  expect(progress.length).toBeGreaterThanOrEqual(1);
  expect(lines.filter((line) => line.startsWith("completed: 100 %"))).toHaveLength(1);
  expect(stderr).toContain(`Moved stress, 16 MiB, 2 workers to ${dest.peer}\n`);
  expect((await dest.end()).exitCode).toBe(0);
});

/** What is written to a terminal, with its escape sequences by name: CR, EL (erase), SGR (colour). */
function showEscapes(text: string): string {
  const escape = "\u001b[";
  return text
    .split(escape)
    .map((part, index) => {
      if (index === 0) return part;
      return part.startsWith("K") ? `<EL>${part.slice(1)}` : part.replace(/^[\d;]*m/, "<SGR>");
    })
    .join("")
    .replaceAll("\r\n", "\n")
    .replaceAll("\r", "<CR>");
}

/** script(1) of util-linux gives a program a terminal. */
function needScript(): Need {
  const missing = Bun.which("script") === null ? "install the package bsdutils" : undefined;
  return { what: "script(1)", missing };
}

const terminalTest = requireOrSkip(needUserfaultfd(), needScript());

terminalTest("on a terminal: one line that is redrawn", async () => {
  await using directory = new TemporaryDirectory("terminal");
  await using dest = await startDest();
  const words = plainSource(dest.peer).join(" ");
  const command = [
    "script",
    "--quiet",
    "--return",
    "--command",
    words,
    directory.file("typescript"),
  ];
  const { exitCode, stdout } = await run(command);
  expect(exitCode).toBe(0);
  // Carriage return, the line, and whatever is left of a longer one erased.
  const shown = showEscapes(stdout);
  const redraws = shown.match(/<CR>(<SGR>)?(setup|precopy|device|postcopy).*?<EL>/g) ?? [];
  expect((await dest.end()).exitCode).toBe(0);
  // How often that is depends on who else uses the machine; tests/unit/report/progress.test.ts counts.
  expect(redraws.length).toBeGreaterThanOrEqual(2);
  const widths = redraws.map((line) => Bun.stringWidth(line.replaceAll(/<[A-Z]+>/g, "")));
  expect(Math.max(...widths)).toBeLessThan(80);
  // The line is gone when the report comes.
  expect(shown).toMatch(/<CR><EL>(<SGR>)?Moved stress/);
});

terminalTest("--quiet on a terminal shows nothing when all is well", async () => {
  await using directory = new TemporaryDirectory("terminal");
  await using dest = await startDest();
  const words = [...plainSource(dest.peer), "--quiet"].join(" ");
  const command = [
    "script",
    "--quiet",
    "--return",
    "--command",
    words,
    directory.file("typescript"),
  ];
  expect(await run(command)).toMatchObject({ exitCode: 0, stdout: "" });
  expect((await dest.end()).exitCode).toBe(0);
});
