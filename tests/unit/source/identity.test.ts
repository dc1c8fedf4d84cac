/** A source that goes on over another link: only with the destination that has its guest. */
import { expect, test } from "bun:test";
import { Channel } from "../../../src/channel/channel.ts";
import { confirmIdentity, takeIdentityPong } from "../../../src/source/identity.ts";
import { checkPeer } from "../../../src/source/refusal.ts";
import { IDENTITY_ANSWER, WORD } from "../../../src/source/shared.ts";
import { SHUT_STATUS } from "../../../src/stream/return-path.ts";
import { readCommand } from "../../../src/stream/command.ts";
import { identityPings, PONG_OTHER_GUEST, PONG_SAME_GUEST } from "../../../src/stream/identity.ts";
import { readSectionHeader } from "../../../src/stream/section.ts";
import { PostcopyError } from "../../../src/util/errors.ts";
import { Descriptors } from "../../helpers/descriptors.ts";
import { SendingGuest, sourceContext } from "../../helpers/sending-guest.ts";

/** What comes of asking a destination that answers the last PING by `answer`, and whether it was told. */
function ask(answer: (echo: number) => number, wasTold: boolean): string {
  using guest = new SendingGuest([4]);
  using descriptors = new Descriptors();
  const [fd, peerFd] = descriptors.pair();
  const stopFd = descriptors.event();
  const open = (each: number): Channel =>
    new Channel({ fd: each, stopFd, peer: "the other end", bufferBytes: 4096 });
  const { shared, blocks } = guest;
  const context = sourceContext(blocks, shared, open(fd), stopFd);
  const pings = identityPings(context.identity);
  Atomics.store(shared.control, WORD.identityTold, wasTold ? 1 : 0);
  // As the return-path thread does when the answers come: to what was not asked, nothing is known.
  for (const value of pings.slice(0, -1)) takeIdentityPong(shared, value);
  expect(Atomics.load(shared.control, WORD.identityAnswer)).toBe(IDENTITY_ANSWER.none);
  takeIdentityPong(shared, answer(pings.at(-1) ?? 0));
  try {
    confirmIdentity(context);
  } catch (error) {
    return error instanceof PostcopyError ? error.code : String(error);
  }
  const { reader } = open(peerFd);
  for (const value of pings) {
    expect(readSectionHeader(reader)).toEqual({ kind: "command" });
    expect(readCommand(reader)).toEqual({ kind: "ping", value });
  }
  return Atomics.load(shared.control, WORD.identityTold) === 1 ? "the same" : "not known";
}

test("goes on where the same guest is waited for, and nowhere where another one is", () => {
  for (const wasTold of [false, true]) {
    expect(ask(() => PONG_SAME_GUEST, wasTold)).toBe("the same");
    expect(ask(() => PONG_OTHER_GUEST, wasTold)).toBe("OTHER_GUEST");
  }
});

test("goes on with who knows nothing of it, unless this process has told it before", () => {
  expect(ask((echo) => echo, false)).toBe("not known");
  expect(ask((echo) => echo, true)).toBe("OTHER_GUEST");
});

test("believes that its guest is gone only of who has that guest, once a link is to go on", () => {
  using guest = new SendingGuest([4]);
  const { shared } = guest;
  const { none, awaited, same, other } = IDENTITY_ANSWER;
  const codeOf = (answer: number, status: number): string => {
    Atomics.store(shared.control, WORD.identityAnswer, answer);
    Atomics.store(shared.control, WORD.shutStatus, status);
    shared.finished.set();
    try {
      checkPeer(shared);
    } catch (error) {
      return error instanceof PostcopyError ? error.code : String(error);
    }
    return "done";
  };
  expect(codeOf(none, SHUT_STATUS.guestGone)).toBe("GUEST_GONE");
  expect(codeOf(same, SHUT_STATUS.guestGone)).toBe("GUEST_GONE");
  // Only who fills a VMM's memory says how large its pages are.
  Atomics.store(shared.control, WORD.hostPageBytes, 4096);
  expect(codeOf(same, SHUT_STATUS.guestGone)).toBe("VMM_GONE");
  // It may be the VMM of another guest, to whose destination this source was led.
  expect(codeOf(awaited, SHUT_STATUS.guestGone)).toBe("PEER_CLOSED");
  // Where the answer came and the link was closed behind it.
  expect(codeOf(other, -1)).toBe("OTHER_GUEST");
  expect(codeOf(same, SHUT_STATUS.done)).toBe("done");
});
