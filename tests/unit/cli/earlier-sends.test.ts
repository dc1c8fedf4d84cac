/** What the journal says of a guest in files that was sent before, and what follows for a new send. */
import { expect, test } from "bun:test";

import { unfinishedSends } from "../../../src/commands/earlier-sends.ts";
import type { Output } from "../../../src/commands/common.ts";
import type { JournalGuest, JournalPeer, PeerKey } from "../../../src/journal/entry.ts";
import { Journal } from "../../../src/journal/journal.ts";
import { writeRecord } from "../../../src/journal/record.ts";
import { PostcopyError } from "../../../src/util/errors.ts";
import { ownProcess } from "../../../src/util/processes.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const GUEST: JournalGuest = { kind: "stored", path: "/guest" };
const HERE: JournalPeer = { kind: "address", text: "tcp:127.0.0.1:1" };
const THERE: JournalPeer = { kind: "address", text: "tcp:127.0.0.1:2" };
const RUN: JournalPeer = {
  ...{ kind: "run", command: "qemu -m 1G" },
  ...{ process: ownProcess(), monitor: "/monitor" },
};
const NEITHER = { resume: false, again: false };

/** A journal with one send to `peer`, by a process that has ended or still runs. */
async function withSend(
  peer: JournalPeer,
  act: (ask: (to: PeerKey, options?: typeof NEITHER) => number, warnings: string[]) => void,
  ended = true,
): Promise<void> {
  await using directory = new TemporaryDirectory("journal");
  const journal = Journal.open(directory.path);
  const record = journal.record(GUEST, peer);
  const sender = ended ? { ...ownProcess(), startTicks: 0 } : ownProcess();
  writeRecord({ ...record, entry: { ...record.entry, sender } }, "committing");
  const warnings: string[] = [];
  const output = { warn: (_: string, text: string) => warnings.push(text) } as unknown as Output;
  act((to, options = NEITHER) => {
    return unfinishedSends(journal, GUEST, to, options, output).length;
  }, warnings);
}

function refusal(act: () => unknown): PostcopyError {
  try {
    act();
  } catch (error) {
    if (error instanceof PostcopyError) return error;
  }
  throw new Error("it was not refused");
}

test("to the same peer it is refused, with what finishes it there", async () => {
  await withSend(HERE, (ask) => {
    const { code, message, hint } = refusal(() => ask(HERE));
    expect(code).toBe("SPLIT_BRAIN");
    expect(message).toMatch(/^The guest of \/guest was handed to tcp:127\.0\.0\.1:1 at \d{4}-/);
    expect(hint).toContain("--resume (a QEMU there has to be told before, at its monitor: ");
    expect(hint).toContain("migrate_recover tcp:127.0.0.1:1");
    expect(hint).toEndWith("--again");
  });
});

test("it is sent the rest, or another copy, where that is said", async () => {
  await withSend(HERE, (ask, warnings) => {
    expect(ask(HERE, { resume: true, again: false })).toBe(1);
    expect(ask(HERE, { resume: false, again: true })).toBe(1);
    expect(warnings).toEqual([]);
  });
});

test("to another peer it is another copy, which is mentioned", async () => {
  await withSend(HERE, (ask, warnings) => {
    expect(ask(THERE)).toBe(0);
    expect(warnings).toEqual([expect.stringMatching(/it probably runs there; this is another/)]);
  });
});

test("while its sender still runs, it is one of many that are sent at the same time", async () => {
  await withSend(
    HERE,
    (ask, warnings) => {
      expect(ask(HERE)).toBe(0);
      expect(warnings).toEqual([]);
    },
    false,
  );
});

test("the QEMU that the same command has started is named, and needs not be told", async () => {
  await withSend(RUN, (ask) => {
    const { message, hint } = refusal(() => ask({ kind: "run", command: "qemu -m 1G" }));
    expect(message).toContain(`the QEMU that was started for it (process ${process.pid})`);
    expect(hint).not.toContain("migrate_recover");
    expect(ask({ kind: "run", command: "qemu -m 2G" })).toBe(0);
  });
});
