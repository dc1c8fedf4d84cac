/** `--allow`: who comes from elsewhere is closed at once, with a warning; the others are let in. */
import { expect } from "bun:test";

import { Link } from "../helpers/link.ts";
import { expectMoved, pages, startDest, startSource } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";

const GUEST = "stress:size=4MiB,duration=50ms";

requireOrSkip(needUserfaultfd())(
  "only who comes from an address of --allow is let in, with all its connections",
  async () => {
    await using dest = await startDest({ flags: ["--allow", "127.0.0.2/31", "--allow", "::1"] });
    await using outsider = startSource({ to: dest.peer, guest: GUEST });
    const { exitCode, stayed } = await outsider.end();
    expect(exitCode).toBe(1);
    expect(stayed?.pagesWrong).toBe(0);
    await dest.event("warning", ({ message }) => {
      return /^A connection from tcp:127\.0\.0\.1:\d+ was turned away: --allow/.test(message);
    });
    await using link = await Link.start(dest.peer, "127.0.0.3");
    const flags = ["--switchover", "now"];
    await using source = startSource({ to: link.uri, guest: GUEST, flags });
    const [sent, got] = await Promise.all([source.end(), dest.end()]);
    expectMoved(sent, got, pages("4MiB"));
    expect(sent.report.urgentChannel).toBe(true);
  },
);
