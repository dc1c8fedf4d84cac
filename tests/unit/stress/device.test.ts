import { expect, test } from "bun:test";
import { StressDestGuest } from "../../../src/guests/stress/dest-guest.ts";
import type { StressNews } from "../../../src/guests/stress/dest-guest.ts";
import { StressDevice } from "../../../src/guests/stress/machine.ts";
import { SentVersions } from "../../../src/guests/stress/changes.ts";
import { blockLayout } from "../../../src/guests/stress/parameters.ts";
import { createStressSetup, openStressWorld } from "../../../src/guests/stress/setup.ts";
import { StressControl } from "../../../src/guests/stress/control.ts";
import { StreamReader } from "../../../src/stream/reader.ts";
import { readFooter, readFullSectionHeader } from "../../../src/stream/section.ts";
import { StreamError } from "../../../src/util/errors.ts";
import { SharedMemory } from "./shared-memory.ts";
import { MEBIBYTE, smallParameters } from "./stress-guest.ts";

const parameters = smallParameters({ size: MEBIBYTE, workers: 2 });

function makeGuest() {
  const memory = SharedMemory.allocate(parameters);
  const setup = createStressSetup(parameters, memory.ranges);
  return { setup, world: openStressWorld(setup, memory.view) };
}

/** A destination that has read these sections, and what it told main. */
function takeIn(...sections: readonly Uint8Array[]): StressNews[] {
  const news: StressNews[] = [];
  const guest = new StressDestGuest(undefined, (each) => news.push(each));
  guest.prepareMemory(
    blockLayout(parameters).map((block) => ({ ...block, pageSize: parameters.pageSize })),
    undefined,
  );
  const { devices } = guest;
  if (devices.kind !== "modelled") throw new Error("a guest whose devices are not known");
  for (const bytes of sections) {
    const reader = new StreamReader(bytes, bytes.length);
    const section = readFullSectionHeader(reader);
    devices.load(section, reader);
    readFooter(reader, section.sectionId);
    expect(reader.available).toBe(0);
  }
  return news;
}

test("what was sent ahead and what has changed since make the state of the guest", () => {
  const { setup, world } = makeGuest();
  const device = new StressDevice(setup);
  const change = (page: number, version: number): void => {
    world.versions[page] = version;
    world.changed.set(page);
  };
  const sections = [device.ahead().slice()];
  change(3, 7);
  sections.push(device.ahead().slice());
  change(3, 8);
  change(255, 0x8000_0001);
  const control = new StressControl(setup.control);
  const progress = control.progress().map((each, worker) => ({ ...each, operations: 5 + worker }));
  control.goOnFrom(progress);
  const rest = device.rest().slice();
  expect(rest.length).toBeLessThan(sections[0]?.length ?? 0);
  const [arrived] = takeIn(...sections, rest);
  if (arrived?.kind !== "stress arrived") throw new Error("no guest arrived");
  expect([...new Uint32Array(arrived.guest.setup.versions)]).toEqual([...world.versions]);
  expect(new StressControl(arrived.guest.setup.control).progress()).toEqual(progress);
});

test("a change that nobody notes is not found, one that is noted is found once", () => {
  const { setup, world } = makeGuest();
  world.changed.set(1);
  const sent = new SentVersions(setup);
  expect(sent.take().pages.length).toBe(0);
  world.versions[200] = 9;
  world.changed.set(200);
  world.changed.set(201);
  const { pages, versions } = sent.take();
  expect([[...pages], [...versions]]).toEqual([
    [200, 201],
    [9, 0],
  ]);
  expect(sent.take().pages.length).toBe(0);
});

test("changes come after a state, which comes once", () => {
  const { setup } = makeGuest();
  const device = new StressDevice(setup);
  const state = device.ahead().slice();
  const update = device.ahead().slice();
  expect(() => takeIn(update)).toThrow(StreamError);
  expect(() => takeIn(state, state)).toThrow("came twice");
  expect(takeIn(state, update, update)).toHaveLength(1);
});
