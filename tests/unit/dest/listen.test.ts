import { expect, test } from "bun:test";
import { join } from "node:path";
import { FATE } from "../../../src/dest/refusal.ts";
import { createDestShared, DestShared, WORD } from "../../../src/dest/shared.ts";
import { waitUntil } from "../../helpers/deadline.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { PROJECT_ROOT } from "../../helpers/spawn.ts";
import { startThread } from "../../helpers/test-thread.ts";
import { waitingBytes, writeBytes } from "../../fixtures/descriptors.ts";
import type * as PostcopyThreads from "../../fixtures/postcopy-threads.ts";

const POSTCOPY = import.meta.resolve("../../fixtures/postcopy-threads.ts");

/** The main channel ends while one page is missing; `meanwhile` is what happens then. */
async function endOfMainChannel(
  chosen: boolean,
  meanwhile: (control: Int32Array<SharedArrayBuffer>) => void,
): Promise<string> {
  using descriptors = new Descriptors();
  await using thread = await startThread<typeof PostcopyThreads>(POSTCOPY);
  const data = createDestShared();
  const { control } = new DestShared(data);
  Atomics.store(control, WORD.missing, 1);
  Atomics.store(control, WORD.urgentChosen, chosen ? 1 : 0);
  const [fd, sourceFd] = descriptors.pair();
  const stopFd = descriptors.event();
  const pages = { received: [], removed: [], unpopulated: [], requestedAt: [] };
  let end: string | undefined;
  const order = { shared: data, blocks: [], pages, fd, stopFd, linkTimeoutMs: 30_000 };
  const listening = thread.call("listenUntilEnd", order);
  const ended = listening.then(
    () => (end = "whole"),
    (error: unknown) => (end = error instanceof Error ? error.message : String(error)),
  );
  expect(writeBytes(sourceFd, Uint8Array.of(0))).toBe(1);
  await waitUntil(() => waitingBytes(fd) === 0, "EOF to be read");
  if (!chosen) await ended;
  expect(end === undefined).toBe(chosen);
  meanwhile(control);
  return await ended;
}

const LACKING = "The stream ended and 1 pages never came";

test("pages on a chosen urgent channel are waited for, also before it is there", async () => {
  const come = (control: Int32Array): void => void Atomics.store(control, WORD.missing, 0);
  expect(await endOfMainChannel(true, come)).toBe("whole");
});

test("an urgent channel that has ended brings nothing more", async () => {
  const end = (control: Int32Array): void => void Atomics.store(control, WORD.urgentEnded, 1);
  expect(await endOfMainChannel(true, end)).toBe(LACKING);
});

test("without an urgent channel nothing more comes", async () => {
  expect(await endOfMainChannel(false, () => undefined)).toBe(LACKING);
});

/** A source that sends nothing at all; `words` of the control block are set. */
async function listenToSilence(
  words: Readonly<Record<number, number>>,
  act: (control: Int32Array<SharedArrayBuffer>, end: Promise<string>) => Promise<void>,
): Promise<void> {
  using descriptors = new Descriptors();
  await using thread = await startThread<typeof PostcopyThreads>(POSTCOPY);
  const data = createDestShared();
  const { control } = new DestShared(data);
  for (const [word, value] of Object.entries(words)) Atomics.store(control, Number(word), value);
  const [fd] = descriptors.pair();
  const stopFd = descriptors.event();
  const pages = { received: [], removed: [], unpopulated: [], requestedAt: [] };
  const order = { shared: data, blocks: [], pages, fd, stopFd, linkTimeoutMs: 30 };
  const listening = thread.call("listenUntilEnd", order);
  const end = listening.then(
    () => "whole",
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
  await act(control, end);
}

const RUNS = { [WORD.fate]: FATE.runs };

test("a source that is silent before the guest runs is given up", async () => {
  await listenToSilence({ [WORD.missing]: 1 }, async (_, end) => {
    expect(await end).toBe("the source sent nothing for 30 ms");
  });
});

test("a source may be silent while the guest runs and lacks pages, and need not end", async () => {
  await listenToSilence({ [WORD.missing]: 1, ...RUNS }, async (control, end) => {
    // Others that are as silent show that the time has passed.
    await listenToSilence({ [WORD.missing]: 1 }, async (_, other) => void (await other));
    await listenToSilence({ [WORD.missing]: 0, ...RUNS }, async (_, other) => {
      expect(await other).toBe("whole");
    });
    const still = Promise.race([end, Promise.resolve("waiting")]);
    expect(await still).toBe("waiting");
    Atomics.store(control, WORD.missing, 0);
    expect(await end).toBe("whole");
  });
});

test("nothing else gives the guest's memory back to the kernel: it would read zeros", async () => {
  const files = [...new Bun.Glob("src/**/*.ts").scanSync({ cwd: PROJECT_ROOT })].sort();
  const found: string[] = [];
  for (const file of files) {
    const text = await Bun.file(join(PROJECT_ROOT, file)).text();
    if (
      /\.(tryU|u)nregister\(|userfaultFd.*closeDescriptor|closeDescriptor.*userfaultFd/.test(text)
    ) {
      found.push(file);
    }
    // Its own, of memory that is only watched or measured with, or one that is only asked what it can do.
    if (/userfault\.close\(/.test(text)) found.push(`${file}: closes`);
  }
  expect(found).toEqual([
    "src/bench/primitives.ts: closes",
    "src/check/kernel.ts: closes",
    "src/dest/foreign-memory.ts",
    "src/dest/listen.ts",
    "src/dest/listen.ts: closes",
    // Of a handover that is refused: the VMM keeps its own.
    "src/guests/uffd/vmm.ts",
    "src/ram/dirty-tracking.ts: closes",
  ]);
});
