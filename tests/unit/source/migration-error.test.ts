/** What a failed migration says of where the guest is, and which exit code that has. */
import { expect, test } from "bun:test";
import { Channel } from "../../../src/channel/channel.ts";
import { MigrationError } from "../../../src/source/migrate.ts";
import type { GuestPlace } from "../../../src/source/migrate.ts";
import { GuestGoneError } from "../../../src/source/refusal.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { SendingGuest, sourceContext } from "../../helpers/sending-guest.ts";

test("that it is gone is believed of one that has left, and no live one is said to be lost here", () => {
  using descriptors = new Descriptors();
  using guest = new SendingGuest([1]);
  const [fd] = descriptors.pair();
  const stopFd = descriptors.event();
  const channel = new Channel({ fd, stopFd, peer: "the destination", bufferBytes: 0 });
  const context = sourceContext(guest.blocks, guest.shared, channel, stopFd);
  const failure = (live: boolean, place: GuestPlace): [string, number, string] => {
    const of = { ...context, guest: { ...context.guest, live } };
    const { code, exitCode, message } = new MigrationError(place, of, new GuestGoneError(false));
    return [code, exitCode, message];
  };
  expect(failure(true, "source")).toEqual([
    "MIGRATION_FAILED",
    1,
    "The migration failed; the guest goes on here",
  ]);
  expect(failure(true, "destination")).toEqual([
    "GUEST_GONE",
    4,
    "The migration failed after the switchover, and the guest is lost",
  ]);
  expect(failure(false, "source")).toEqual([
    "GUEST_GONE",
    4,
    "The migration failed; what was kept is as it was",
  ]);
});
