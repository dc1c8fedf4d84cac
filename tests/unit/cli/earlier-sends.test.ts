/** What the journal says of a guest in files that was sent before, and what follows for a new send. */
import { expect, test } from "bun:test";
import { copyFileSync, renameSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";

import { storedIdentity, unfinishedSends } from "../../../src/commands/earlier-sends.ts";
import type { EarlierSendsOptions } from "../../../src/commands/earlier-sends.ts";
import type { Output } from "../../../src/commands/common.ts";
import {
  MANIFEST_FILE,
  PACKAGE_FILE,
  ramFile,
  SNAPSHOT_FORMAT,
  SNAPSHOT_VERSION,
  sumsFile,
} from "../../../src/guests/snapshot/layout.ts";
import type { Manifest } from "../../../src/guests/snapshot/layout.ts";
import type { JournalGuest, JournalPeer, PeerKey } from "../../../src/journal/entry.ts";
import { Journal } from "../../../src/journal/journal.ts";
import { writeRecord } from "../../../src/journal/record.ts";
import { PostcopyError } from "../../../src/util/errors.ts";
import { ownProcess } from "../../../src/util/processes.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const GUEST: JournalGuest = { kind: "stored", path: "/guest", content: "" };
const HERE: JournalPeer = { kind: "address", text: "tcp:127.0.0.1:1" };
const THERE: JournalPeer = { kind: "address", text: "tcp:127.0.0.1:2" };
const RUN: JournalPeer = {
  ...{ kind: "run", command: "qemu -m 1G" },
  ...{ process: ownProcess(), monitor: "/monitor" },
};
const NEITHER: EarlierSendsOptions = { resume: false, again: false };

/** A journal with a send to each peer, by processes that have ended or still run. */
async function withSend(
  peers: JournalPeer | readonly JournalPeer[],
  act: (ask: (to: PeerKey, options?: EarlierSendsOptions) => number, warnings: string[]) => void,
  ended = true,
): Promise<void> {
  await using directory = new TemporaryDirectory("journal");
  const journal = Journal.open(directory.path);
  const sender = ended ? { ...ownProcess(), startTicks: 0 } : ownProcess();
  for (const [index, peer] of [peers].flat().entries()) {
    const { directory: place, name, entry, replaces } = journal.record(GUEST, peer);
    const own = name.replace(/\d+\.json$/, `${index}.json`);
    writeRecord(
      { directory: place, name: own, entry: { ...entry, sender }, replaces },
      "committing",
    );
  }
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
    expect(hint).toMatch(/: --again; or, .*: postcopy journal --journal \S+ --forget \w+-\d+-\d+$/);
    // Memory alone is at no QEMU.
    const alone = refusal(() => ask(HERE, { ...NEITHER, memoryAlone: true }));
    expect(alone.hint).toContain("--resume; or send another copy");
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

test("the rest goes to another address where only one send can be meant", async () => {
  const rest = { resume: true, again: false };
  await withSend([HERE, RUN], (ask, warnings) => {
    expect(ask(THERE, rest)).toBe(1);
    expect(warnings).toEqual([]);
  });
  await withSend(RUN, (ask) => expect(ask(THERE, rest)).toBe(0));
  await withSend([HERE, THERE], (ask) => {
    expect(ask(THERE, rest)).toBe(1);
    const { code, message } = refusal(() => ask({ kind: "address", text: "unix:/new" }, rest));
    expect(code).toBe("AMBIGUOUS");
    expect(message).toContain("tcp:127.0.0.1:1 at ");
    expect(message).toContain("tcp:127.0.0.1:2 at ");
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

test("a stream is known by its place, whatever leads there, until another is kept in it", async () => {
  await using directory = new TemporaryDirectory("journal");
  const file = directory.file("stream");
  const word = { kind: "stream", file } as const;
  const absent = storedIdentity(word);
  writeFileSync(file, "guest");
  utimesSync(file, 1, 1);
  const first = storedIdentity(word);
  symlinkSync(file, directory.file("link"));
  expect(storedIdentity({ kind: "stream", file: directory.file("link") })).toEqual(first);
  // It is read, and moved to another file system and back.
  copyFileSync(file, directory.file("copy"));
  utimesSync(directory.file("copy"), 1, 1);
  renameSync(directory.file("copy"), file);
  expect(storedIdentity(word)).toEqual(first);
  writeFileSync(file, "other");
  const second = storedIdentity(word);
  expect(second).toMatchObject({ path: file });
  expect(second).not.toEqual(first);
  expect(absent).toEqual({ kind: "stored", path: file, content: "" });
});

test("a snapshot is known by when it was made and its device state", async () => {
  await using directory = new TemporaryDirectory("journal");
  const word = { kind: "snapshot", directory: directory.path } as const;
  const identities = [1, 2, 3].map((round) => {
    const createdAt = `2001-01-01T00:00:0${round === 1 ? 1 : 2}.000Z`;
    const digest = (round === 3 ? "c" : "b").repeat(64);
    const block = { name: "pc.ram", length: 4096, pageSize: 4096, pagesStored: 1 };
    const files = { file: ramFile(0), sums: sumsFile(0), sumsSha256: digest };
    const manifest: Manifest = {
      ...{ format: SNAPSHOT_FORMAT, version: SNAPSHOT_VERSION, program: "test", createdAt },
      ...{ machineType: "pc", targetPageSize: 4096, blocks: [{ ...block, ...files }] },
      package: { file: PACKAGE_FILE, bytes: 1, sha256: digest },
    };
    writeFileSync(directory.file(MANIFEST_FILE), JSON.stringify(manifest));
    return JSON.stringify(storedIdentity(word));
  });
  expect(new Set(identities).size).toBe(3);
  expect(JSON.stringify(storedIdentity(word))).toBe(identities[2] ?? "");
});
