import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { PONG_RUNNING, readHello, aheadPass } from "../../../src/stream/hello.ts";
import {
  IDENTITY_BYTES,
  IDENTITY_TEXT,
  identityOfText,
  identityPings,
  isLastPart,
  newIdentity,
  PONG_OTHER_GUEST,
  PONG_SAME_GUEST,
  ToldIdentity,
} from "../../../src/stream/identity.ts";

const identities = fc
  .uint8Array({ minLength: IDENTITY_BYTES, maxLength: IDENTITY_BYTES })
  .map((bytes) => bytes.toHex());

describe("an identity", () => {
  test("is told in eight values that fit a PING, in whatever order", () => {
    fc.assert(
      fc.property(identities, fc.integer({ min: 0, max: 7 }), (identity, from) => {
        const pings = identityPings(identity);
        expect(pings.map(isLastPart)).toEqual(pings.map((_, index) => index === 7));
        const told = new ToldIdentity();
        for (const value of [...pings.slice(from), ...pings.slice(0, from)]) {
          expect(value).toBeWithin(0, 2 ** 32);
          expect(told.identity).toBeUndefined();
          told.take(value);
        }
        expect(told.identity).toBe(identity);
      }),
    );
  });

  test("is not mistaken for what else is said by PINGs, nor made of that", () => {
    const others = [0, 1, 2, 3, 4, 0x42, 0xffff_ffff, PONG_RUNNING, 0x504f_ffff, 0x5058_0000];
    const told = new ToldIdentity();
    for (const value of [...others, PONG_SAME_GUEST, PONG_OTHER_GUEST]) {
      told.take(value);
      expect(isLastPart(value)).toBe(false);
    }
    for (const value of [...identityPings(newIdentity()), PONG_SAME_GUEST, PONG_OTHER_GUEST]) {
      expect(readHello(value)).toBeUndefined();
      expect(aheadPass(value)).toBeUndefined();
    }
    expect(told.identity).toBeUndefined();
  });

  test("of files follows from what they are, that of a live guest from nothing", () => {
    expect(identityOfText("a")).toMatch(IDENTITY_TEXT);
    expect(identityOfText("a")).toBe(identityOfText("a"));
    expect(identityOfText("b")).not.toBe(identityOfText("a"));
    expect(newIdentity()).toMatch(IDENTITY_TEXT);
    expect(newIdentity()).not.toBe(newIdentity());
  });
});
