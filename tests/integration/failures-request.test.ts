/**
 * Destinations that send what no destination would: the source names it, ends the migration, and
 * says where the guest is.
 */
import { describe, expect } from "bun:test";

import type { Piece } from "../helpers/hand-made-stream.ts";
import { HandMadeDestination } from "../helpers/hand-made-peer.ts";
import type { HandMadePeer } from "../helpers/hand-made-peer.ts";
import { NO_RECOVERY, pages, startSource } from "../helpers/migration.ts";
import type { SourceRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { answerAsQemu } from "../helpers/stuck-source.ts";

const migrationTest = requireOrSkip(needUserfaultfd());

const COUNT = pages("16MiB");
const BLOCK = "stress.ram";
/** Nothing is pushed before the test has said its piece. */
const FLAGS = [
  "--switchover",
  "now",
  "--max-postcopy-bandwidth",
  "64KiB/s",
  "--link-timeout",
  "1s",
  ...NO_RECOVERY,
] as const;

/** A source whose peer is in the hands of the test, from before the switchover or after it. */
async function withSource(
  after: "setup" | "package",
  act: (peer: HandMadePeer, source: SourceRole) => Promise<void>,
): Promise<void> {
  await using server = await HandMadeDestination.open();
  await using source = startSource({ to: server.peer, flags: FLAGS });
  const peer = await server.accept();
  if (after === "package") {
    await answerAsQemu(peer);
    await source.phase("postcopy");
  }
  await act(peer, source);
}

/** A message is refused in these words, at a time when the guest may be at the destination. */
function refused(name: string, message: Piece, says: string): void {
  migrationTest(name, async () => {
    await withSource("package", async (peer, source) => {
      peer.send(message);
      const { exitCode, error, stayed } = await source.end();
      expect({ exitCode, stayed }).toEqual({ exitCode: 1, stayed: undefined });
      expect(error?.message).toContain("the guest is at the destination");
      expect(error?.message).toContain(says);
    });
  });
}

/** A page request as it is, right or wrong. */
function request(block: string | undefined, start: number, length: number): Piece {
  return (writer) => {
    const name = block === undefined ? 0 : 1 + block.length;
    writer.u16(block === undefined ? 4 : 3).u16(12 + name);
    writer.u64(start).u32(length);
    if (block !== undefined) writer.str8(block);
  };
}

describe("page requests", () => {
  refused(
    "of an unknown block",
    request("pc.ram", 0, 4096),
    'The destination names the unknown block "pc.ram"',
  );
  refused(
    "behind the end of the block",
    request(BLOCK, 16 * 2 ** 20, 4096),
    `The destination asks for 4096 bytes at 16777216 of ${BLOCK}, which has 16777216 bytes`,
  );
  refused(
    "that cut a page",
    request(BLOCK, 2048, 4096),
    `The destination asks for 4096 bytes at 2048 of ${BLOCK}`,
  );
  refused(
    "of no bytes",
    request(BLOCK, 0, 0),
    "A page request asks for 0 bytes at 0, which no block has",
  );
  refused(
    "that name no block at first",
    request(undefined, 0, 4096),
    "The first page request does not name its block",
  );

  migrationTest("before the switchover", async () => {
    await withSource("setup", async (peer, source) => {
      peer.send(request(BLOCK, 0, 4096));
      const { exitCode, error, stayed } = await source.end();
      expect(exitCode).toBe(1);
      expect(stayed).toMatchObject({ pagesChecked: COUNT, pagesWrong: 0 });
      expect(error?.message).toContain("The destination asks for a page before the switchover");
    });
  });

  migrationTest("are answered once, and a repeat is ignored", async () => {
    await withSource("package", async (peer, source) => {
      // Far from where the push begins.
      peer.send(request(BLOCK, 8 * 2 ** 20, 4096), request(undefined, 8 * 2 ** 20, 4096));
      peer.send(request(undefined, 12 * 2 ** 20, 8192));
      await source.event("progress", ({ faults }) => faults === 3);
      peer.close();
      const { report } = await source.end();
      expect(report.requests).toMatchObject({ received: 3, served: 2, duplicate: 1 });
      expect(report.requests.remoteShare).toBeCloseTo(3 / report.pages.owed, 12);
      expect(report.pages.requestedNormal + report.pages.requestedZero).toBe(3);
    });
  });
});

describe("other messages", () => {
  refused(
    "a type that does not exist",
    (writer) => writer.u16(77).u16(0),
    "The return path has an unknown message, type 77",
  );
  refused(
    "a length that no message has",
    (writer) => writer.u16(2).u16(5).u32(0).u8(0),
    "The message PONG has 5 bytes",
  );
  refused(
    "a received bitmap that nobody asked for",
    (writer) =>
      writer
        .u16(5)
        .u16(1 + BLOCK.length)
        .str8(BLOCK),
    "The destination sent a received bitmap of stress.ram, which nobody asked for",
  );

  migrationTest("silence: after the time for an answer the guest goes on", async () => {
    await withSource("setup", async (_, source) => {
      const { exitCode, error, stayed, report } = await source.end();
      expect(exitCode).toBe(1);
      expect(stayed).toMatchObject({ pagesChecked: COUNT, pagesWrong: 0 });
      expect(error?.message).toEndWith("The destination answered no PING for 1 s");
      expect(report.phase).toBe("setup");
    });
  });
});
