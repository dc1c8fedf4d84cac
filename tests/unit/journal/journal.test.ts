/** The journal's files: what is found again, what is forgotten, and what is never taken for nothing. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import type { JournalGuest, JournalPeer } from "../../../src/journal/entry.ts";
import { samePeer } from "../../../src/journal/entry.ts";
import { defaultJournal, Journal } from "../../../src/journal/journal.ts";
import { removeRecord, writeRecord } from "../../../src/journal/record.ts";
import type { JournalRecord } from "../../../src/journal/record.ts";
import { PostcopyError } from "../../../src/util/errors.ts";
import { ownProcess } from "../../../src/util/processes.ts";
import { needStrace, requireOrSkip } from "../../helpers/need.ts";
import { PROJECT_ROOT, run } from "../../helpers/spawn.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PEER: JournalPeer = { kind: "address", text: "tcp:127.0.0.1:1" };
const STORED: JournalGuest = { kind: "stored", path: "/guest", content: "one" };
/** Elsewhere; and one that was kept in the same place later. */
const OTHERS: JournalGuest[] = [
  { ...STORED, path: "/other" },
  { ...STORED, content: "two" },
];
/** A process of this host that is no more. */
const DEAD = { ...ownProcess(), startTicks: 0 };

/** A record as a process that has ended left it. */
function ofTheDead(record: JournalRecord): JournalRecord {
  return { ...record, entry: { ...record.entry, sender: DEAD } };
}

function codeOf(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    return error instanceof PostcopyError ? error.code : String(error);
  }
  return "none";
}

describe("an entry", () => {
  test("is found by its guest, and by no other, until it is removed", async () => {
    await using directory = new TemporaryDirectory("journal");
    const path = directory.file("a/b");
    const record = Journal.open(path).record(STORED, PEER);
    expect(readdirSync(path)).toEqual([]);
    writeRecord(record, "committing");
    const journal = Journal.open(path);
    expect(journal.entriesOf(STORED)).toEqual([{ name: record.name, entry: record.entry }]);
    expect(OTHERS.flatMap((other) => journal.entriesOf(other))).toEqual([]);
    writeRecord(record, "moved");
    expect(journal.entriesOf(STORED)[0]?.entry.state).toBe("moved");
    removeRecord(record);
    removeRecord(record);
    expect(readdirSync(path)).toEqual([]);
  });

  test("is listed with all others, and forgotten by its name, but of a send under way", async () => {
    await using directory = new TemporaryDirectory("journal");
    const journal = Journal.open(directory.path);
    const [mine, dead] = [journal.record(STORED, PEER), ofTheDead(journal.record(STORED, PEER))];
    const since = "2001-02-03T04:05:06.789Z";
    const earlier = { ...dead, name: "0123456789abcdef-1-1.json", entry: { ...dead.entry, since } };
    for (const record of [mine, earlier]) writeRecord(record, "committing");
    const damaged = "fedcba9876543210-2-2";
    writeFileSync(directory.file(`${damaged}.json`), "{");
    // Nobody's entry.
    writeFileSync(directory.file("notes.json"), "{}");
    const names = (): string[] => journal.list().map(({ name }) => name);
    const own = mine.name.replace(".json", "");
    expect(names()).toEqual(["0123456789abcdef-1-1", own, damaged]);
    expect(codeOf(() => journal.forgetNamed(own))).toBe("SENDING");
    for (const name of ["0123456789abcdef-1-2", "notes", `../${own}`]) {
      expect(codeOf(() => journal.forgetNamed(name))).toBe("NO_ENTRY");
    }
    expect(journal.forgetNamed("0123456789abcdef-1-1").entry).toEqual(earlier.entry);
    expect(journal.forgetNamed(damaged).entry).toBeUndefined();
    expect(names()).toEqual([own]);
  });

  test("is its owner's alone", async () => {
    await using directory = new TemporaryDirectory("journal");
    const path = directory.file("journal");
    const record = Journal.open(path).record(STORED, PEER);
    writeRecord(record, "committing");
    expect(statSync(path).mode & 0o777).toBe(0o700);
    expect(statSync(join(path, record.name)).mode & 0o777).toBe(0o600);
  });

  test("comes in the place of those that it replaces", async () => {
    await using directory = new TemporaryDirectory("journal");
    const journal = Journal.open(directory.path);
    const dead = ofTheDead(journal.record(STORED, PEER));
    const since = "2001-02-03T04:05:06.789Z";
    const earlier = { ...dead, name: "0123456789abcdef-1-1.json", entry: { ...dead.entry, since } };
    writeRecord(earlier, "committing");
    const replaces = [{ name: earlier.name, entry: earlier.entry }];
    const record = journal.record(STORED, PEER, { replaces });
    expect(readdirSync(directory.path)).toEqual([earlier.name]);
    writeRecord(record, "committing");
    expect(readdirSync(directory.path)).toEqual([record.name]);
    // The guest is there since then, whoever sends the rest.
    expect(journal.entriesOf(STORED)[0]?.entry).toMatchObject({ since, sender: ownProcess() });
  });

  test("that was never written leaves those that it was to replace", async () => {
    await using directory = new TemporaryDirectory("journal");
    const journal = Journal.open(directory.path);
    const dead = ofTheDead(journal.record(STORED, PEER));
    const earlier = { ...dead, name: "0123456789abcdef-1-1.json" };
    writeRecord(earlier, "committing");
    removeRecord(journal.record(STORED, PEER, { replaces: [earlier] }));
    expect(readdirSync(directory.path)).toEqual([earlier.name]);
  });

  test("that is damaged counts against its guest, and no other", async () => {
    await using directory = new TemporaryDirectory("journal");
    const record = Journal.open(directory.path).record(STORED, PEER);
    writeRecord(record, "committing");
    const file = join(directory.path, record.name);
    const whole = readFileSync(file, "utf8");
    for (const text of ["", whole.slice(0, 40), "{}", whole.replace('"committing"', '"fine"')]) {
      writeFileSync(file, text);
      const journal = Journal.open(directory.path);
      expect(codeOf(() => journal.entriesOf(STORED))).toBe("BAD_JOURNAL");
      expect(OTHERS.flatMap((other) => journal.entriesOf(other))).toEqual([]);
    }
    expect(readdirSync(directory.path)).toEqual([record.name]);
  });
});

requireOrSkip(needStrace())(
  "an entry is durable before it has its name, and its name as well",
  async () => {
    await using directory = new TemporaryDirectory("journal");
    const room = join(PROJECT_ROOT, "src", "journal");
    const program = [
      `import { Journal } from ${JSON.stringify(join(room, "journal.ts"))};`,
      `import { writeRecord } from ${JSON.stringify(join(room, "record.ts"))};`,
      `const journal = Journal.open(${JSON.stringify(directory.path)});`,
      `writeRecord(journal.record(${JSON.stringify(STORED)}, ${JSON.stringify(PEER)}), "committing");`,
    ].join("\n");
    const trace = directory.file("trace");
    const calls = ["-e", "trace=fsync,rename,renameat,renameat2", "-o", trace];
    await run(["strace", "-f", "-y", ...calls, process.execPath, "-e", program]);
    const [name = ""] = readdirSync(directory.path).filter((file) => file.endsWith(".json"));
    const path = directory.file(name);
    const seen = readFileSync(trace, "latin1")
      .split("\n")
      .flatMap((line) => {
        const synced = /fsync\(\d+<([^>]*)>/.exec(line)?.[1];
        if (synced !== undefined) return [`fsync ${synced}`];
        return line.includes(`"${path}"`) ? [`rename to ${path}`] : [];
      });
    expect(seen).toEqual([`fsync ${path}.tmp`, `rename to ${path}`, `fsync ${directory.path}`]);
  },
);

describe("what is opened again", () => {
  const started = (process: typeof DEAD): JournalPeer => {
    return { kind: "run", command: "qemu", process, monitor: "/monitor" };
  };
  const qemu = (process: typeof DEAD | null): JournalGuest => {
    return { kind: "qemu", process, socket: "/monitor", uuid: "" };
  };
  const EARLIER_BOOT = { ...ownProcess(), boot: "another" };
  interface Left {
    what: string;
    guest: JournalGuest;
    peer: JournalPeer;
    sender?: typeof DEAD;
    stays: boolean;
  }
  const LEFT: Left[] = [
    { what: "a kept guest at a peer", guest: STORED, peer: PEER, stays: true },
    { what: "one in a QEMU that runs", guest: STORED, peer: started(ownProcess()), stays: true },
    { what: "one in a QEMU that has ended", guest: STORED, peer: started(DEAD), stays: false },
    { what: "that of a QEMU that runs", guest: qemu(ownProcess()), peer: PEER, stays: true },
    { what: "that of a QEMU that has ended", guest: qemu(DEAD), peer: PEER, stays: false },
    { what: "that of a QEMU that cannot be seen", guest: qemu(null), peer: PEER, stays: true },
    {
      what: "that of one that could not be seen before the host was started anew",
      ...{ guest: qemu(null), peer: PEER, sender: EARLIER_BOOT, stays: false },
    },
    {
      what: "that of a process that has ended",
      guest: { kind: "stress" },
      peer: PEER,
      stays: false,
    },
  ];
  for (const { what, guest, peer, sender = DEAD, stays } of LEFT) {
    test(`${what} ${stays ? "is still there" : "means nothing any more"}`, async () => {
      await using directory = new TemporaryDirectory("journal");
      const noted = Journal.open(directory.path).record(guest, peer);
      const record = { ...noted, entry: { ...noted.entry, sender } };
      writeRecord(record, "committing");
      Journal.open(directory.path);
      expect(readdirSync(directory.path)).toEqual(stays ? [record.name] : []);
    });
  }
});

test("a file that was left in the middle of writing it says nothing, and goes", async () => {
  await using directory = new TemporaryDirectory("journal");
  const { name } = Journal.open(directory.path).record(STORED, PEER);
  const dead = name.replace(/\d+\.json$/, "0.json");
  // The second is still being written.
  for (const file of [dead, name]) writeFileSync(join(directory.path, `${file}.tmp`), "{");
  expect(Journal.open(directory.path).entriesOf(STORED)).toEqual([]);
  expect(readdirSync(directory.path)).toEqual([`${name}.tmp`]);
});

test("a directory that cannot be written to is refused before anything is done", async () => {
  await using directory = new TemporaryDirectory("journal");
  writeFileSync(directory.file("file"), "");
  expect(codeOf(() => Journal.open(directory.file("file/journal")))).toBe("NO_JOURNAL");
  const record = Journal.open(directory.file("journal")).record(STORED, PEER);
  mkdirSync(join(directory.file("journal"), `${record.name}.tmp`));
  expect(codeOf(() => writeRecord(record, "committing"))).toBe("NO_JOURNAL");
});

test("it is the host's for root, and one's own for others", () => {
  const path = defaultJournal({ XDG_STATE_HOME: "/state" });
  expect(path).toBe(process.getuid?.() === 0 ? "/var/lib/postcopy" : "/state/postcopy");
});

test("peers are the same by their address, or by the command that starts them", () => {
  const started = { kind: "run", command: "qemu -m 1G" } as const;
  expect(samePeer(PEER, PEER)).toBe(true);
  expect(samePeer(PEER, { kind: "address", text: "tcp:127.0.0.1:2" })).toBe(false);
  expect(samePeer(started, started)).toBe(true);
  expect(samePeer(started, { kind: "run", command: "qemu -m 2G" })).toBe(false);
  expect(samePeer(PEER, started)).toBe(false);
});
