/** The flags of `dest` that are about a VMM: what they say, and with what they contradict each other. */
import { expect, test } from "bun:test";
import { dest } from "../../../src/commands/dest.ts";
import { UsageError } from "../../../src/util/errors.ts";

const LISTEN = ["--listen", "tcp:127.0.0.1:0"];
const UFFD = ["--guest", "uffd:/run/uffd", ...LISTEN];
const KEEP = ["--keep-fd", "holder:/run/hold"];

function refusal(...words: string[]): string {
  try {
    dest.parse(words);
  } catch (error) {
    if (error instanceof UsageError) return error.message;
    throw error;
  }
  return "nothing";
}

test("a VMM that is filled may be kept, frozen, and gone on with", () => {
  const words = [...UFFD, ...KEEP, "--resume", "--on-failure", "freeze"];
  expect(dest.parse(words)).toMatchObject({
    ...{ keepFd: { kind: "holder", path: "/run/hold" }, resume: true, onFailure: "freeze" },
  });
  const files = ["--guest", "uffd:/run/uffd", "--from", "snapshot:/var/lib/vm"];
  expect(dest.parse([...files, ...KEEP, "--resume"])).toMatchObject({ resume: true });
  expect(dest.parse(UFFD)).toMatchObject({ resume: false, keepFd: undefined });
});

test("what is resumed was kept, and its source connects", () => {
  const message = "Flag --resume is for a VMM whose userfaultfd was kept: it needs --keep-fd too";
  expect(refusal(...UFFD, "--resume")).toBe(message);
  const command = ["--guest", "uffd:/run/uffd", "--listen", "exec:cat"];
  expect(refusal(...command, ...KEEP, "--resume")).toBe(message);
});

test("other guests have nothing of it", () => {
  const stress = ["--guest", "stress", ...LISTEN];
  expect(refusal(...stress, ...KEEP)).toBe("Flag --keep-fd is for guest uffd");
  expect(refusal(...stress, "--on-failure", "kill")).toBe("Flag --on-failure is for guest uffd");
  expect(refusal(...UFFD, "--on-failure", "pause")).toContain("is not one of kill, freeze");
  expect(refusal(...UFFD, "--keep-fd", "drawer")).toContain("There is no keeper");
});

test("a flag that means nothing there is refused also where it says what is so anyway", () => {
  expect(dest.parse(UFFD)).toMatchObject({ connectTimeout: 10_000 });
  expect(refusal(...UFFD, "--connect-timeout", "10s")).toContain("Flag --connect-timeout is for");
});
