import { expect, test } from "bun:test";
import { SOURCE_FLAGS } from "../../../src/commands/source-flags.ts";

test("a link may be silent from a second to an hour", () => {
  const { schema } = SOURCE_FLAGS["link-timeout"];
  if (schema === undefined) throw new Error("it has no value");
  const parsed = (text: string): unknown => schema.safeParse(text).data;
  expect(["1s", "30s", "1h"].map(parsed)).toEqual([1000, 30_000, 3_600_000]);
  const refused = ["0", "999ms", "1h1s", "30"].map((text) => schema.safeParse(text));
  expect(refused.map(({ success }) => success)).toEqual([false, false, false, false]);
  expect(refused[1]?.error?.message).toContain("is no time for a link to be silent");
});
