/** Works of the soak between two ends of ours: links that break, sources that are killed. */
import { waitUntil } from "../../tests/helpers/deadline.ts";
import { Link } from "../../tests/helpers/link.ts";
import { expectMoved, pages, startDest, startSource } from "../../tests/helpers/migration.ts";
import type { RoleEnd } from "../../tests/helpers/migration.ts";
import { DEFAULT_LIFE_MS } from "../../tests/helpers/spawn.ts";
import { TemporaryDirectory } from "../../tests/helpers/temporary-directory.ts";
import type { Random } from "../../tests/helpers/random.ts";

/** Longer than a role lives that hangs, whose end then says what it was at. */
const LIFE_MS = 2 * DEFAULT_LIFE_MS;

/** How long a source may take to end behind its destination. */
const SETTLE_MS = 20_000;

/** Slow enough that most of the guest is still missing when the link breaks. */
const SLOW = ["--max-postcopy-bandwidth", "16MiB/s"];

function expectEnded(...ends: readonly RoleEnd<unknown>[]): void {
  for (const { exitCode, stderr } of ends) {
    if (exitCode !== 0) throw new Error(`exit code ${exitCode}: ${stderr}`);
  }
}

/** A stress guest moves while its link breaks a few times, some of them in recoveries. */
export async function moveOverBrokenLinks(dice: Random): Promise<string> {
  const size = `${dice.pick([32, 48, 64])}MiB`;
  const guest = `stress:size=${size},rate=${dice.pick(["4MiB/s", "unlimited"])},duration=200ms`;
  const switchover = dice.pick(["now", "rounds=1"]);
  const breaks = dice.between(1, 4);
  await using dest = await startDest();
  await using link = await Link.start(dest.peer);
  const flags = ["--switchover", switchover, ...SLOW];
  await using source = startSource({ to: link.uri, guest, flags });
  await dest.event("running");
  for (let i = 0; i < breaks && source.program.running; i++) {
    const carried = link.connections;
    const breaksAgain = dice.chance(50);
    link.cut();
    if (breaksAgain) link.mendUntilAnswer(dest.peer);
    else link.mend(dest.peer);
    if (dice.chance(50)) source.program.kill("SIGUSR2");
    const came = (): boolean => (breaksAgain ? link.isCut : link.connections > carried);
    const seen = (): boolean => came() || !source.program.running || !dest.program.running;
    await waitUntil(seen, "the source that comes back", LIFE_MS);
  }
  link.mend(dest.peer);
  const got = await dest.end();
  expectEnded(got);
  if (got.report.audit?.pagesWrong !== 0) throw new Error(JSON.stringify(got.report));
  const text = `${guest}, ${switchover}, ${breaks} breaks`;
  const sent = await Promise.race([source.end(), Bun.sleep(SETTLE_MS)]);
  if (sent !== undefined) {
    expectEnded(sent);
    return `${text}, ${sent.report.recoveries} recoveries`;
  }
  // The link broke behind the last page, and a destination that is whole does not wait: the source
  // cannot know, and goes on trying.
  source.program.kill();
  const { events, stderr } = await source.end();
  const last = events.findLast((event) => event.event === "phase");
  if (last?.phase !== "paused") throw new Error(`a source that hangs in ${last?.phase}: ${stderr}`);
  return `${text}; the source never heard that the guest is whole`;
}

/** A kept stress guest is sent by a source that is killed, and by others that go on for it. */
export async function resumeAfterKills(dice: Random): Promise<string> {
  await using directory = new TemporaryDirectory("soak");
  const size = `${dice.pick([16, 48])}MiB`;
  const kept = `snapshot:${directory.file("guest")}`;
  {
    await using keeper = await startDest({ guest: kept });
    const guest = `stress:size=${size},duration=100ms`;
    const flags = ["--switchover", dice.pick(["now", "rounds=1"])];
    await using source = startSource({ to: keeper.peer, guest, flags });
    expectEnded(...(await Promise.all([source.end(), keeper.end()])));
  }
  const kills = dice.between(0, 3);
  await using dest = await startDest();
  await using first = startSource({ to: dest.peer, guest: kept, flags: SLOW });
  if (kills === 0) {
    expectMoved(...(await Promise.all([first.end(), dest.end()])), pages(size));
    return `a kept guest of ${size}, moved as it was`;
  }
  await dest.event("running");
  first.program.kill("SIGKILL");
  for (let kill = 1; kill < kills; kill++) {
    await using next = startSource({ to: dest.peer, guest: kept, flags: ["--resume", ...SLOW] });
    await waitUntil(() => next.program.stdout.text !== "" || !next.program.running, "a resume");
    next.program.kill("SIGKILL");
  }
  await using last = startSource({ to: dest.peer, guest: kept, flags: ["--resume"] });
  const [sent, got] = await Promise.all([last.end(), dest.end()]);
  // The one that was killed may have brought everything: then there was nobody to resume with.
  expectEnded(got, ...(sent.exitCode === 0 ? [sent] : []));
  if (got.report.audit?.pagesWrong !== 0) throw new Error(JSON.stringify(got.report));
  return `a kept guest of ${size}, its source killed ${kills} times`;
}
