/** A joint between two sockets that do what the test wants: take little, end, break. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { Joint, JOINT_HANDLERS, socketState } from "../../../src/tls/joint.ts";
import type { BridgeSocket } from "../../../src/tls/joint.ts";

/** A socket that takes no more than its room, and notes what is done to it. */
class FakeSocket {
  readonly data = socketState("a peer");
  readonly taken: number[] = [];
  room = Infinity;
  paused = false;
  state: "open" | "shut down" | "ended" | "terminated" = "open";

  write(bytes: Uint8Array): number {
    if (this.state !== "open") return -1;
    const count = Math.min(this.room, bytes.length);
    this.room -= count;
    this.taken.push(...bytes.subarray(0, count));
    return count;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  shutdown(): void {
    this.state = "shut down";
  }

  end(): void {
    this.state = "ended";
  }

  terminate(): void {
    this.state = "terminated";
  }

  /** As the real one, for what takes it. */
  get real(): BridgeSocket {
    return this as unknown as BridgeSocket;
  }

  says(...bytes: number[]): void {
    JOINT_HANDLERS.data(this.real, Buffer.from(bytes));
  }

  drains(room: number): void {
    this.room = room;
    JOINT_HANDLERS.drain(this.real);
  }

  ends(): void {
    JOINT_HANDLERS.end(this.real);
  }

  closes(error?: Error): void {
    JOINT_HANDLERS.close(this.real, error);
  }
}

function joined(): { one: FakeSocket; other: FakeSocket; closed: () => number } {
  const [one, other] = [new FakeSocket(), new FakeSocket()];
  let count = 0;
  new Joint(one.real, other.real, () => count++);
  return { one, other, closed: () => count };
}

test("bytes come out in order, and a writer is paused while any of them wait", () => {
  const step = fc.oneof(
    fc.record({ says: fc.uint8Array({ minLength: 1, maxLength: 20 }) }),
    fc.record({ room: fc.integer({ min: 0, max: 30 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { one, other } = joined();
      other.room = 0;
      const said: number[] = [];
      for (const each of steps) {
        if ("room" in each) other.drains(each.room);
        else if (!one.paused) {
          one.says(...each.says);
          said.push(...each.says);
        }
        expect(other.taken).toEqual(said.slice(0, other.taken.length));
        expect(one.paused).toBe(other.taken.length < said.length);
      }
      other.drains(Infinity);
      expect(other.taken).toEqual(said);
      expect(one.paused).toBe(false);
    }),
  );
});

test("what came before they were joined is not lost, nor is that it was all", () => {
  const [one, other] = [new FakeSocket(), new FakeSocket()];
  one.says(1, 2);
  one.says(3);
  one.ends();
  new Joint(one.real, other.real, () => undefined);
  expect(other.taken).toEqual([1, 2, 3]);
  expect(other.state).toBe("shut down");
});

test("an end is passed on behind what still waits, and the other direction stays open", () => {
  const { one, other, closed } = joined();
  other.room = 1;
  one.says(1, 2, 3);
  one.ends();
  expect(other.state).toBe("open");
  other.drains(Infinity);
  expect(other.taken).toEqual([1, 2, 3]);
  expect(other.state).toBe("shut down");
  other.says(4);
  expect(one.taken).toEqual([4]);
  other.ends();
  expect([one.state, other.state]).toEqual(["ended", "ended"]);
  one.closes();
  expect(closed()).toBe(0);
  other.closes();
  expect(closed()).toBe(1);
});

test("what a peer has sent that is gone still goes out", () => {
  const { one, other, closed } = joined();
  other.room = 0;
  one.says(1, 2, 3);
  one.ends();
  one.closes();
  other.drains(Infinity);
  expect(other.taken).toEqual([1, 2, 3]);
  expect(other.state).toBe("ended");
  other.closes();
  expect(closed()).toBe(1);
});

test("what is cut off, or fails, is cut off at the other end", () => {
  const { one, other, closed } = joined();
  one.closes();
  expect(other.state).toBe("terminated");
  other.closes();
  expect(closed()).toBe(1);

  const failing = joined();
  failing.one.ends();
  failing.one.closes(new Error("reset"));
  expect(failing.other.state).toBe("terminated");
});
