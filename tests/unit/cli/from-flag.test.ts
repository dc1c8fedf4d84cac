/** `dest --from`: where pages come from is said once, and what is for the other way is refused. */
import { expect, test } from "bun:test";
import { checkFrom } from "../../../src/commands/from-flag.ts";
import type { GuestWord } from "../../../src/commands/guest-words.ts";
import { UsageError } from "../../../src/util/errors.ts";

type Options = Parameters<typeof checkFrom>[0];

const LISTEN = { kind: "tcp", host: "127.0.0.1", port: 0 } as const;
const VMM: GuestWord = { kind: "uffd", socket: "/run/vm1" };
const KEPT: GuestWord = { kind: "snapshot", directory: "/var/lib/vm1" };
const PLAIN: Options = {
  ...{ guest: VMM, listen: undefined, from: undefined },
  ...{ noRecord: false, noReplay: false, replayLimit: undefined },
  ...{ tls: undefined, tlsHostname: undefined, insecure: false, allow: [] },
  recoverTimeout: undefined,
};

/** What is said to these, beside PLAIN; "" if nothing. */
function said(options: Partial<Options>): string {
  try {
    checkFrom({ ...PLAIN, ...options });
    return "";
  } catch (error) {
    if (error instanceof UsageError) return `${error.code}: ${error.message}`;
    throw error;
  }
}

test("a VMM's memory comes from a source, or from files", () => {
  expect(said({ listen: LISTEN })).toBe("");
  expect(said({ from: KEPT, noRecord: true, replayLimit: 4096 })).toBe("");
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
  const link: [Partial<Options>, string][] = [
    [{ tls: "pki" }, "--tls"],
    [{ tlsHostname: "host" }, "--tls-hostname"],
    [{ insecure: true }, "--insecure"],
    [{ allow: [{ address: "192.0.2.7", prefix: 32 }] }, "--allow"],
    [{ recoverTimeout: 0 }, "--recover-timeout"],
  ];
  for (const [options, flag] of link) {
    expect(said({ ...options, from: KEPT })).toStartWith(`CONTRADICTION: Flag ${flag} is for`);
    expect(said({ ...options, listen: LISTEN })).toBe("");
  }
  const files: [Partial<Options>, string][] = [
    [{ noRecord: true }, "--no-record"],
    [{ noReplay: true }, "--no-replay"],
    [{ replayLimit: 4096 }, "--replay-limit"],
  ];
  for (const [options, flag] of files) {
    expect(said({ ...options, listen: LISTEN })).toBe(`CONTRADICTION: Flag ${flag} is for --from`);
  }
});
