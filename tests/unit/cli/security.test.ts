import { expect, test } from "bun:test";
import { parsePeer } from "../../../src/channel/address.ts";
import { checkEnvironment } from "../../../src/commands/environment.ts";
import { checkAllow, checkSecurity } from "../../../src/commands/security.ts";
import type { SecurityOptions } from "../../../src/commands/security.ts";
import { UsageError } from "../../../src/util/errors.ts";

function refusal(act: () => void): string {
  try {
    act();
  } catch (error) {
    if (error instanceof UsageError) return error.message;
    throw error;
  }
  return "nothing";
}

const TCP = parsePeer("tcp:192.0.2.7:4444");
const NONE: SecurityOptions = { tls: undefined, tlsHostname: undefined, insecure: false };
const TLS: SecurityOptions = { ...NONE, tls: "/etc/postcopy" };

test("--tls is taken for tcp, and refused where it could not be kept", () => {
  const check = (options: SecurityOptions, listen?: string, to?: string): string => {
    const peer = (text?: string) => (text === undefined ? undefined : parsePeer(text));
    return refusal(() => checkSecurity(options, peer(listen), peer(to)));
  };
  const tcp = "tcp:192.0.2.7:4444";
  expect(check(NONE, "unix:/run/x")).toBe("nothing");
  expect(check(TLS, tcp)).toBe("nothing");
  expect(check(TLS, tcp, tcp)).toBe("nothing");
  expect(check({ ...TLS, tlsHostname: "host2" }, undefined, tcp)).toBe("nothing");
  for (const peer of ["unix:/run/x", "exec:nc host2", "fd:3"]) {
    const kind = peer.split(":")[0];
    expect(check(TLS, undefined, peer)).toBe(`Flag --tls is for tcp, and not for ${kind}`);
    expect(check(TLS, peer, tcp)).toBe(`Flag --tls is for tcp, and not for ${kind}`);
  }
  expect(check({ ...TLS, insecure: true }, tcp)).toContain("--tls and --insecure contradict");
  expect(check({ ...TLS, tlsHostname: "host2" }, tcp)).toContain(
    "--tls-hostname is for who connects",
  );
  expect(check({ ...NONE, tlsHostname: "host2" }, undefined, tcp)).toContain("--tls-hostname");
});

test("--allow is refused where nobody would heed it", () => {
  const rules = [{ address: "192.0.2.7", prefix: 32 }];
  expect(refusal(() => checkAllow(rules, TCP, false))).toBe("nothing");
  expect(refusal(() => checkAllow([], parsePeer("unix:/run/x"), true))).toBe("nothing");
  expect(refusal(() => checkAllow(rules, parsePeer("unix:/run/x"), false))).toContain("for tcp");
  expect(refusal(() => checkAllow(rules, TCP, true))).toContain("not for a QEMU");
});

test("variables with orders for the runtime are refused by name, others are not", () => {
  for (const name of ["BUN_OPTIONS", "BUN_INSPECT", "BUN_INSPECT_NOTIFY", "BUN_JSC_useJIT"]) {
    expect(refusal(() => checkEnvironment({ [name]: "" }))).toBe(
      `The variable ${name} is set, which would change this program`,
    );
  }
  expect(refusal(() => checkEnvironment({ BUN_INSTALL: "/opt/bun", NODE_OPTIONS: "-x" }))).toBe(
    "nothing",
  );
});
