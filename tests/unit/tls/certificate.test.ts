import { expect, test } from "bun:test";
import { X509Certificate, createPrivateKey } from "node:crypto";
import fc from "fast-check";
import { makeAuthority, makeCredential } from "../../../src/tls/certificate.ts";
import { integer, objectIdentifier, octetString, time } from "../../../src/tls/der.ts";

const HOSTS = ["host2.example", "192.0.2.7", "2001:db8::7"];
const authority = makeAuthority({ days: 30 });
const root = new X509Certificate(authority.certificate);
const DAY_MS = 86_400_000;

function parse(end: "server" | "client", hosts: readonly string[]): X509Certificate {
  const { certificate, key } = makeCredential(authority, end, hosts, { days: 30 });
  const parsed = new X509Certificate(certificate);
  expect(parsed.checkPrivateKey(createPrivateKey(key))).toBe(true);
  return parsed;
}

test("an authority signs itself, and may sign others", () => {
  expect(root.ca).toBe(true);
  expect(root.verify(root.publicKey)).toBe(true);
  expect(root.checkPrivateKey(createPrivateKey(authority.key))).toBe(true);
  // Two of them are told apart by their names.
  expect(new X509Certificate(makeAuthority({ days: 30 }).certificate).subject).not.toBe(
    root.subject,
  );
});

test("a server is signed by it, for its names and addresses and no others", () => {
  const server = parse("server", HOSTS);
  expect(server.ca).toBe(false);
  expect(server.checkIssued(root)).toBe(true);
  expect(server.verify(root.publicKey)).toBe(true);
  expect(server.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
  expect(server.checkHost("host2.example")).toBe("host2.example");
  expect(server.checkHost("host3.example")).toBeUndefined();
  expect(server.checkIP("192.0.2.7")).toBe("192.0.2.7");
  expect(server.checkIP("2001:db8::7")).toBe("2001:db8::7");
  expect(server.checkIP("192.0.2.8")).toBeUndefined();
});

test("a client has a purpose of its own, and no names", () => {
  const client = parse("client", []);
  expect(client.verify(root.publicKey)).toBe(true);
  expect(client.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
  expect(client.subjectAltName).toBeUndefined();
});

test("certificates begin a little in the past and last for the days that were asked for", () => {
  const { validFrom, validTo, serialNumber } = parse("client", []);
  const [from, to] = [Date.parse(validFrom) - Date.now(), Date.parse(validTo) - Date.now()];
  expect(from).toBeLessThan(-3_590_000);
  expect(Math.abs(to - 30 * DAY_MS)).toBeLessThan(60_000);
  expect(serialNumber).not.toBe(parse("client", []).serialNumber);
});

test("years from 2050 on have four digits", () => {
  const days = (Date.UTC(2051, 5, 1) - Date.now()) / DAY_MS;
  const { certificate } = makeCredential(authority, "client", [], { days });
  expect(new X509Certificate(certificate).validTo).toContain("2051");
  expect(Buffer.from(time(new Date(Date.UTC(2049, 0, 2)))).toString("latin1")).toEndWith(
    "490102000000Z",
  );
});

test("integers are never negative, and as short as can be", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      const [tag, length, ...content] = integer(...bytes);
      expect([tag, length]).toEqual([2, content.length]);
      expect(content[0]).toBeLessThan(0x80);
      const value = (of: ArrayLike<number>): bigint => {
        return BigInt(`0x0${Buffer.from(Array.from(of)).toString("hex")}`);
      };
      expect(value(content)).toBe(value(bytes));
      // A zero in front is there only for the sign.
      if (content.length > 1 && content[0] === 0) expect(content[1]).toBeGreaterThanOrEqual(0x80);
    }),
  );
});

test("lengths and object identifiers are those of X.690", () => {
  expect(Buffer.from(objectIdentifier("1.2.840.10045.4.3.2")).toString("hex")).toBe(
    "06082a8648ce3d040302",
  );
  for (const [length, head] of [
    [127, "047f"],
    [128, "048180"],
    [255, "0481ff"],
    [256, "04820100"],
  ] as const) {
    expect(Buffer.from(octetString(new Uint8Array(length))).toString("hex")).toStartWith(head);
  }
});
