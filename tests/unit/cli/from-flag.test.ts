/** `dest --from`: where pages come from is said once, and what is for the other way is refused. */
import { expect, test } from "bun:test";
import { checkFrom } from "../../../src/commands/from-flag.ts";
import type { GuestWord } from "../../../src/commands/guest-words.ts";
import { UsageError } from "../../../src/util/errors.ts";

type Options = Parameters<typeof checkFrom>[0];

const LISTEN = { kind: "tcp", host: "127.0.0.1", port: 0 } as const;
const VMM: GuestWord = { kind: "uffd", socket: "/run/vm1" };
const KEPT: GuestWord = { kind: "snapshot", directory: "/var/lib/vm1" };
const PLAIN: Options = { guest: VMM, listen: undefined, from: undefined };

/** What is said to these, beside PLAIN, where `given` were written; "" if nothing. */
function said(options: Partial<Options>, ...given: string[]): string {
  try {
    checkFrom({ ...PLAIN, ...options }, new Set(given));
    return "";
  } catch (error) {
    if (error instanceof UsageError) return `${error.code}: ${error.message}`;
    throw error;
  }
}

test("a VMM's memory comes from a source, or from files", () => {
  expect(said({ listen: LISTEN })).toBe("");
  expect(said({ from: KEPT }, "no-record", "replay-limit")).toBe("");
  expect(said({ from: { kind: "stream", file: "saved" } })).toBe("");
  expect(said({ from: { kind: "firecracker", files: ["mem"] } })).toBe("");
  expect(said({})).toStartWith("MISSING_FLAG: Flag --listen is missing");
  expect(said({ from: KEPT, listen: LISTEN })).toContain("--listen and --from contradict");
});

test("only a VMM is filled from files, and only from a guest that was kept", () => {
  expect(said({ from: KEPT, guest: KEPT })).toContain("Flag --from is for a VMM's memory");
  expect(said({ from: VMM })).toContain("is for a kept guest, and not for uffd");
  expect(said({ from: { kind: "qemu", socket: "/run/vm1" } })).toContain("and not for qemu");
});

test("what is about a link to a source goes with --listen, about its files with --from", () => {
  for (const flag of ["tls", "tls-hostname", "insecure", "allow", "recover-timeout"]) {
    const refusal = `CONTRADICTION: Flag --${flag} is for a source that connects`;
    expect(said({ from: KEPT }, flag)).toStartWith(refusal);
    expect(said({ listen: LISTEN }, flag)).toBe("");
  }
  for (const flag of ["no-record", "no-replay", "replay-limit"]) {
    const refusal = `CONTRADICTION: Flag --${flag} is for --from`;
    expect(said({ listen: LISTEN }, flag)).toBe(refusal);
  }
});

test("how a guest is sent is said where it is sent: of a VMM nobody sends it onward", () => {
  const here = ["switchover", "max-bandwidth", "max-postcopy-bandwidth", "compress"];
  for (const flag of [...here, "downtime-limit", "preempt", "connect-timeout"]) {
    const refusal = `CONTRADICTION: Flag --${flag} is for who sends a guest`;
    expect(said({ listen: LISTEN }, flag)).toStartWith(refusal);
    expect(said({ listen: LISTEN, guest: KEPT }, flag)).toBe("");
  }
  for (const flag of here) expect(said({ from: KEPT }, flag)).toBe("");
  for (const flag of ["preempt", "connect-timeout"]) {
    expect(said({ from: KEPT }, flag)).toContain(`--${flag} is for another process`);
  }
});
