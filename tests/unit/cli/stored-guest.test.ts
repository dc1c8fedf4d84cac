/** What of a recorded working set is replayed, as the operator says it; a damaged one is told of. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import type { Output } from "../../../src/commands/common.ts";
import type { StoredGuest } from "../../../src/commands/opened-guest.ts";
import { openStoredGuest } from "../../../src/commands/stored-guest.ts";
import type { StoredOptions } from "../../../src/commands/stored-guest.ts";
import { openSnapshot } from "../../../src/guests/snapshot/open.ts";
import { workingSetPath } from "../../../src/guests/snapshot/layout.ts";
import { recordRequests } from "../../../src/guests/stored/working-set.ts";
import { noEvents } from "../../../src/report/sink.ts";
import { filledPage, KeptGuest } from "../../helpers/kept-guest.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

const PAGE = 4096;
const PAGES = 40;
const ASKED = Uint32Array.of(9, 3, 27, 4);

let place: TemporaryDirectory;
beforeAll(() => {
  place = new TemporaryDirectory("stored");
  const directory = place.file("kept");
  mkdirSync(directory);
  const kept = new KeptGuest(directory, [{ name: "ram", length: PAGES * PAGE, pageSize: PAGE }]);
  for (let page = 0; page < PAGES; page++) kept.store(kept.postcopy, 0, page, filledPage(1));
  kept.finish();
});
afterAll(() => place[Symbol.asyncDispose]());

async function open(options: Partial<StoredOptions>): Promise<StoredGuest & { warned: string[] }> {
  const warned: string[] = [];
  const output: Output = {
    page: false,
    events: noEvents,
    warn: (code) => void warned.push(code),
    startProgress: () => ({ stop: () => undefined }),
    finish: () => undefined,
  };
  const all = { noRecord: false, noReplay: false, replayLimit: undefined, ...options };
  const word = { kind: "snapshot", directory: place.file("kept") } as const;
  return { ...(await openStoredGuest(word, all, output)), warned };
}

test("all of it is replayed, or as many bytes of it as may be, or nothing", async () => {
  const { blocks } = openSnapshot(place.file("kept"));
  recordRequests(workingSetPath(place.file("kept")), blocks, ASKED);
  const replayed = async (options: Partial<StoredOptions>): Promise<number[]> => {
    const { workingSet, replay, watch } = await open(options);
    expect(workingSet).toEqual(ASKED);
    expect(watch).toBe(false);
    return [...replay];
  };
  expect(await replayed({})).toEqual([9, 3, 27, 4]);
  expect(await replayed({ replayLimit: 2 * PAGE })).toEqual([9, 3]);
  expect(await replayed({ replayLimit: 3 * PAGE - 1 })).toEqual([9, 3]);
  expect(await replayed({ replayLimit: PAGE - 1 })).toEqual([]);
  expect(await replayed({ noReplay: true })).toEqual([]);
});

test("where nothing is recorded, the guest's requests are watched if they are to be recorded", async () => {
  rmSync(workingSetPath(place.file("kept")), { force: true });
  expect(await open({})).toMatchObject({ workingSet: undefined, watch: true, warned: [] });
  expect(await open({ noRecord: true })).toMatchObject({ watch: false });
});

test("a damaged one is told of, not followed, and recorded anew", async () => {
  writeFileSync(workingSetPath(place.file("kept")), "PCWS, but not whole");
  const opened = await open({});
  expect(opened).toMatchObject({ workingSet: undefined, watch: true, warned: ["BAD_WORKING_SET"] });
  expect(opened.replay).toHaveLength(0);
});
