import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  formatPeer,
  formatSocketPeer,
  parsePeer,
  resolvePeer,
} from "../../../src/channel/address.ts";
import type { Peer } from "../../../src/channel/address.ts";
import { PostcopyError, UsageError } from "../../../src/util/errors.ts";

const hostName = fc
  .array(fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?$/), { minLength: 1, maxLength: 3 })
  .map((labels) => labels.join("."));
const port = fc.nat({ max: 65_535 });
const words = fc.string({ minLength: 1, maxLength: 40, unit: "grapheme" });

const peer: fc.Arbitrary<Peer> = fc.oneof(
  fc.record({
    kind: fc.constant("tcp" as const),
    host: fc.oneof(hostName, fc.ipV4(), fc.ipV6()),
    port,
  }),
  fc.record({
    kind: fc.constant("unix" as const),
    path: words.filter((path) => Buffer.byteLength(path) <= 107),
  }),
  fc.record({ kind: fc.constant("exec" as const), command: words }),
  fc.record({ kind: fc.constant("fd" as const), fd: fc.nat({ max: 999_999 }) }),
);

/** The UsageError of an address that is refused. */
function refusalOf(text: string): UsageError {
  try {
    parsePeer(text);
  } catch (error) {
    if (error instanceof UsageError) return error;
    throw error;
  }
  throw new Error(`${text} was accepted`);
}

describe("a peer address", () => {
  test("comes back from its text", () => {
    fc.assert(
      fc.property(peer, (one) => {
        expect(parsePeer(formatPeer(one))).toEqual(one);
      }),
      { numRuns: 500 },
    );
  });

  test.each<[string, Peer]>([
    ["tcp:127.0.0.1:4444", { kind: "tcp", host: "127.0.0.1", port: 4444 }],
    ["tcp:[::1]:0", { kind: "tcp", host: "::1", port: 0 }],
    ["tcp:far.example.org:65535", { kind: "tcp", host: "far.example.org", port: 65_535 }],
    ["tcp:[127.0.0.1]:1", { kind: "tcp", host: "127.0.0.1", port: 1 }],
    ["unix:/run/a:b", { kind: "unix", path: "/run/a:b" }],
    ["exec:ssh far nc -U /x", { kind: "exec", command: "ssh far nc -U /x" }],
    ["fd:9", { kind: "fd", fd: 9 }],
  ])("%s is understood", (text, expected) => {
    expect(parsePeer(text)).toEqual(expected);
  });

  test("is refused in whole sentences that show a right one", () => {
    const all = "use tcp:HOST:PORT, unix:PATH, exec:COMMAND or fd:NUMBER, e.g. tcp:127.0.0.1:4444";
    for (const text of ["", "4444", "127.0.0.1:4444", "TCP:a:1", "unix:", "exec:", "fd:", "fd:x"]) {
      expect(refusalOf(text)).toMatchObject({
        code: "BAD_PEER",
        exitCode: 2,
        message: `"${text}" is not a peer address`,
        hint: all,
      });
    }
    for (const text of ["tcp:", "tcp:host", "tcp::1", "tcp:h:", "tcp:h:65536", "tcp:::1:4444"]) {
      expect(refusalOf(text)).toMatchObject({
        code: "BAD_PEER",
        message: `"${text}" is not tcp:HOST:PORT`,
        hint: "e.g. tcp:127.0.0.1:4444, or tcp:[::1]:4444; port 0 lets the kernel choose",
      });
    }
    for (const text of ["tcp:h:-1", "tcp:h:4 4", "tcp:h:0x10", "fd:-1", "fd:1e3", "fd:9999999"]) {
      expect(refusalOf(text).code).toBe("BAD_PEER");
    }
    expect(refusalOf("tcp:[fe80::1%eth0]:1").message).toContain("zone");
    const long = `unix:/${"ü".repeat(54)}`;
    expect(refusalOf(long).message).toBe(`The socket path of ${long} is longer than 107 bytes`);
  });

  test("is accepted or refused, whatever it is", () => {
    const text = fc.oneof(
      fc.string({ unit: "binary" }),
      fc
        .tuple(fc.constantFrom("tcp:", "unix:", "fd:", "exec:"), fc.string())
        .map((all) => all.join("")),
    );
    fc.assert(
      fc.property(text, (one) => {
        try {
          expect(formatPeer(parsePeer(one))).not.toBe("");
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe("resolving", () => {
  const tcp = (host: string) => ({ kind: "tcp", host, port: 5 }) as const;

  test("keeps literals and paths as they are", async () => {
    expect(await resolvePeer({ kind: "unix", path: "/a" }, false)).toEqual([
      { family: "unix", path: "/a" },
    ]);
    expect(await resolvePeer(tcp("127.0.0.1"), false)).toEqual([
      { family: "inet", host: "127.0.0.1", port: 5 },
    ]);
    expect(await resolvePeer(tcp("::1"), false)).toEqual([
      { family: "inet6", host: "::1", port: 5 },
    ]);
  });

  test("takes every text of a loopback address for one", async () => {
    for (const host of ["127.0.0.1", "127.255.3.9", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"]) {
      expect(await resolvePeer(tcp(host), false)).toHaveLength(1);
    }
  });

  test("finds all addresses of a name", async () => {
    const found = await resolvePeer(tcp("localhost"), false);
    expect(found.length).toBeGreaterThan(0);
    for (const address of found)
      expect(["127.0.0.1", "::1"]).toContain("host" in address ? address.host : "");
  });

  test("refuses to send guest memory in the clear to another host, unless told to", async () => {
    for (const host of ["10.0.0.1", "0.0.0.0", "::", "128.0.0.1", "fe80::1", "::ffff:10.0.0.1"]) {
      const refusal: unknown = await resolvePeer(tcp(host), false).catch((error: unknown) => error);
      expect(refusal).toMatchObject({ code: "INSECURE", exitCode: 2 });
      expect(String(refusal)).toContain(`${formatPeer(tcp(host))} is not on the loopback`);
      expect(await resolvePeer(tcp(host), true)).toHaveLength(1);
    }
  });

  test("says which name it could not resolve", async () => {
    // RFC 6761: no resolver knows a name under "invalid".
    const failure: unknown = await resolvePeer(tcp("nobody.invalid"), true).catch(
      (error: unknown) => error,
    );
    expect(failure).toBeInstanceOf(PostcopyError);
    expect(failure).toMatchObject({
      code: "UNKNOWN_HOST",
      message: 'The host name "nobody.invalid" cannot be resolved',
    });
    expect(failure instanceof Error && failure.cause).toBeInstanceOf(Error);
  });
});

test("the address of a socket is a peer address, too", () => {
  expect(formatSocketPeer({ family: "inet", host: "127.0.0.1", port: 7 })).toBe("tcp:127.0.0.1:7");
  expect(formatSocketPeer({ family: "inet6", host: "::1", port: 7 })).toBe("tcp:[::1]:7");
  expect(formatSocketPeer({ family: "unix", path: "/a b" })).toBe("unix:/a b");
});
