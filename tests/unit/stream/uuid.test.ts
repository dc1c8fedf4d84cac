import { expect, test } from "bun:test";
import fc from "fast-check";
import { uuidBytes, uuidText } from "../../../src/stream/uuid.ts";

test("an identity as text is the identity again", () => {
  const uuid = fc.uint8Array({ minLength: 16, maxLength: 16 });
  fc.assert(fc.property(uuid, (bytes) => expect(uuidBytes(uuidText(bytes))).toEqual(bytes)));
  expect(uuidText(Uint8Array.from({ length: 16 }, (_, i) => i * 17))).toBe(
    "00112233-4455-6677-8899-aabbccddeeff",
  );
  expect(() => uuidBytes("0011")).toThrow('"0011" is no UUID');
});
