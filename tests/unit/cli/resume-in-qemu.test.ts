/** Which of the QEMUs that a command has started is finished by it with `--resume`. */
import { expect, test } from "bun:test";

import { storedIdentity } from "../../../src/commands/earlier-sends.ts";
import { resumeInQemu } from "../../../src/commands/resume-in-qemu.ts";
import type { RestoreContext } from "../../../src/commands/restore-in-qemu.ts";
import type { JournalPeer } from "../../../src/journal/entry.ts";
import { Journal } from "../../../src/journal/journal.ts";
import { writeRecord } from "../../../src/journal/record.ts";
import { ownProcess } from "../../../src/util/processes.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

test("it is the last one; those before it stay noted, for the next --resume", async () => {
  await using directory = new TemporaryDirectory("journal");
  const journal = Journal.open(directory.file("journal"));
  // It is not there, so the attempt ends before any QEMU is looked for.
  const guest = { kind: "snapshot", directory: directory.file("guest") } as const;
  const command = "qemu -m 1G";
  const identity = storedIdentity(guest);
  for (const index of [1, 2, 3]) {
    const monitor = `/monitor-${index}`;
    const peer: JournalPeer = { kind: "run", command, process: ownProcess(), monitor };
    const record = journal.record(identity, peer);
    const since = `2001-01-01T00:00:0${index}.000Z`;
    const sender = { ...ownProcess(), startTicks: 0 };
    const name = record.name.replace(/\d+\.json$/, `${index}.json`);
    writeRecord({ ...record, name, entry: { ...record.entry, since, sender } }, "committing");
  }
  const options = { resume: true, again: false };
  const context = { journal, options, output: {} } as unknown as RestoreContext;
  const error = await resumeInQemu(context, guest, command).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: "NO_SNAPSHOT" });
  const left = journal.entriesOf(identity).map(({ entry: { peer, sender } }) => {
    return [peer.kind === "run" && peer.monitor, sender.startTicks === 0];
  });
  expect(left).toEqual([
    ["/monitor-1", true],
    ["/monitor-2", true],
    ["/monitor-3", false],
  ]);
});
