/** How long the push is held back to see what a guest asks for: not where nothing more can come. */
import { expect, test } from "bun:test";
import { SOURCE } from "../../../src/report/counters.ts";
import { watchFirstRequests } from "../../../src/source/first-requests.ts";
import type { WatchLimits } from "../../../src/source/first-requests.ts";
import { oweEverything } from "../../../src/source/owed.ts";
import { TIME, WORD } from "../../../src/source/shared.ts";
import { SendingGuest } from "../../helpers/sending-guest.ts";

/** A watch that ends by none of these. */
const ENDLESS: WatchLimits = { startMs: Infinity, quietMs: Infinity, watchMs: Infinity };

type Change = (guest: SendingGuest) => void;
const loaded: Change = ({ shared }) => {
  shared.times[TIME.loaded] = 1;
};

const ENDS: [why: string, limits: Partial<WatchLimits>, change: Change][] = [
  [
    "when every page has been asked for",
    {},
    ({ shared }) => Atomics.store(shared.control, WORD.owed, 0),
  ],
  ["when the destination has gone", {}, ({ shared }) => shared.finished.set()],
  ["when the operator gives up", {}, ({ shared }) => Atomics.store(shared.control, WORD.stop, 1)],
  ["when the guest asks for nothing", { quietMs: 1 }, loaded],
  ["after its time, whatever the guest asks for", { watchMs: 1 }, loaded],
  ["where the guest does not start", { startMs: 1 }, () => {}],
];

test.each(ENDS)("the watch ends %s", (_why, limits, change) => {
  using guest = new SendingGuest([8]);
  oweEverything(guest.shared, guest.blocks);
  guest.shared.counters.add(SOURCE.requestsReceived, 3);
  change(guest);
  watchFirstRequests(guest.shared, { ...ENDLESS, ...limits });
  expect(guest.shared.counters.get(SOURCE.requestsReceived)).toBe(3);
});
