import { expect, test } from "bun:test";
import { parseHost } from "../../../src/commands/keygen.ts";

const LABEL = "a".repeat(63);

test("names and addresses that a certificate can be for are taken as they are", () => {
  const hosts = [
    "host2",
    "h",
    "host2.example.org",
    "*.example.org",
    "xn--bcher-kva.example",
    "2.de",
  ];
  const longest = [LABEL, LABEL, LABEL, "a".repeat(61)].join(".");
  for (const host of [...hosts, longest, "192.0.2.7", "2001:db8::7"]) {
    expect(parseHost(host)).toBe(host);
  }
});

test("others are refused, at once whatever their length", () => {
  const dots = ["a..b", ".a", "a.", "*", "*.", "a.*.b"];
  const hyphens = ["-a", "a-", "a-.b", "a.-b"];
  const long = [`${LABEL}a`, `${LABEL}a.b`, Array(64).fill("abc").join(".")];
  const others = ["", "a b", "a_b", "host2:4444", "fe80::1%eth0", `${"a-".repeat(5000)}!`, "a\n"];
  for (const host of [...dots, ...hyphens, ...long, ...others]) {
    expect(() => parseHost(host)).toThrow("is neither a host name nor an IP address");
  }
});

test("a name of the greatest length that fits nothing is refused without trying for ever", () => {
  expect(() => parseHost(`${"a".repeat(252)}!`)).toThrow("is neither");
  expect(() => parseHost(`${"a.".repeat(126)}!`)).toThrow("is neither");
});
