import { expect, test } from "bun:test";
import { chmodSync, copyFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { readCredentials } from "../../../src/tls/credentials.ts";
import { makeDirectory } from "../../../src/tls/keygen.ts";
import { UsageError } from "../../../src/util/errors.ts";
import { makeCertificates, makeExpired } from "../../helpers/certificates.ts";
import { TemporaryDirectory } from "../../helpers/temporary-directory.ts";

/** What is said about a directory. */
function refusal(act: () => unknown): string {
  try {
    act();
  } catch (error) {
    if (error instanceof UsageError) return `${error.message} | ${error.hint}`;
    throw error;
  }
  return "nothing";
}

test("keygen makes what both ends read, for its owner only, and overwrites nothing", async () => {
  await using place = new TemporaryDirectory("tls");
  const directory = place.file("new/deep");
  makeDirectory(directory, ["host2.example"], 1);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  const names = readdirSync(directory);
  expect(names.toSorted()).toEqual([
    ...["ca-cert.pem", "ca-key.pem", "client-cert.pem", "client-key.pem"],
    ...["server-cert.pem", "server-key.pem"],
  ]);
  for (const name of names) expect(statSync(`${directory}/${name}`).mode & 0o777).toBe(0o600);
  expect(readCredentials(directory, "client")).toMatchObject({ end: "client", revoked: undefined });
  expect(readCredentials(directory, "server").key).toContain("PRIVATE KEY");
  expect(refusal(() => makeDirectory(directory, [], 1))).toContain("is not empty");
  expect(readdirSync(directory)).toEqual(names);
});

test("an end needs only its own key, and never that of the authority", async () => {
  await using directory = makeCertificates();
  for (const name of ["ca-key.pem", "server-key.pem", "server-cert.pem"]) {
    rmSync(directory.file(name));
  }
  expect(readCredentials(directory.path, "client").end).toBe("client");
  expect(refusal(() => readCredentials(directory.path, "server"))).toMatch(
    /server-cert\.pem cannot be read \| postcopy keygen/,
  );
});

test("a key that others can read is refused, as ssh does", async () => {
  await using directory = makeCertificates();
  const path = directory.file("client-key.pem");
  for (const mode of [0o640, 0o604, 0o620]) {
    chmodSync(path, mode);
    expect(refusal(() => readCredentials(directory.path, "client"))).toBe(
      `${path} can be used by others than its owner (mode 0${mode.toString(8)}) | chmod 600 ${path}`,
    );
  }
});

test("files that are not what they should be are named", async () => {
  await using directory = makeCertificates();
  const read = (): unknown => readCredentials(directory.path, "client");
  copyFileSync(directory.file("server-key.pem"), directory.file("client-key.pem"));
  expect(refusal(read)).toContain("client-key.pem is not the key of client-cert.pem");
  writeFileSync(directory.file("client-key.pem"), "nonsense");
  expect(refusal(read)).toContain("client-key.pem is no private key");
  writeFileSync(directory.file("client-cert.pem"), "nonsense");
  expect(refusal(read)).toContain("client-cert.pem is no certificate");
});

test("a certificate of this end that has expired is refused before anybody sees it", async () => {
  await using directory = makeExpired();
  expect(refusal(() => readCredentials(directory.path, "server"))).toMatch(
    /server-cert\.pem has expired \(valid from .* to .*\) \| look at this host's clock/,
  );
  expect(readCredentials(directory.path, "client").end).toBe("client");
});
