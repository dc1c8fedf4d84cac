/** Directories of certificates for tests of TLS, as `postcopy keygen` makes them. */
import { readFileSync, writeFileSync } from "node:fs";
import { X509Certificate, sign } from "node:crypto";
import { makeAuthority, makeCredential } from "../../src/tls/certificate.ts";
import type { Authority } from "../../src/tls/certificate.ts";
import { bitString, integer, objectIdentifier, sequence, time } from "../../src/tls/der.ts";
import { FILES } from "../../src/tls/credentials.ts";
import { makeDirectory } from "../../src/tls/keygen.ts";
import { TemporaryDirectory } from "./temporary-directory.ts";

/** Where the destinations of a test listen, and a name that they go by as well. */
const HOSTS = ["127.0.0.1", "::1", "host2.example"];

/** A directory for both ends; a server in it has the certificate of `hosts`. */
export function makeCertificates(hosts: readonly string[] = HOSTS): TemporaryDirectory {
  const directory = new TemporaryDirectory("tls");
  makeDirectory(directory.path, hosts, 1);
  return directory;
}

/** Such a directory, in which only the server's certificate has expired. */
export function makeExpired(): TemporaryDirectory {
  const directory = new TemporaryDirectory("tls");
  const authority = makeAuthority({ days: 1 });
  const server = makeCredential(authority, "server", HOSTS, { days: -1 / 1440 });
  const client = makeCredential(authority, "client", [], { days: 1 });
  write(directory, FILES.authority, authority.certificate);
  write(directory, FILES.server.certificate, server.certificate);
  write(directory, FILES.server.key, server.key);
  write(directory, FILES.client.certificate, client.certificate);
  write(directory, FILES.client.key, client.key);
  return directory;
}

/** Trusts what the one directory trusts, and is who the other one is. */
export function makeMixed(trusts: TemporaryDirectory, is: TemporaryDirectory): TemporaryDirectory {
  const directory = new TemporaryDirectory("tls");
  for (const [name, from] of [
    [FILES.authority, trusts],
    [FILES.client.certificate, is],
    [FILES.client.key, is],
  ] as const) {
    write(directory, name, readFileSync(from.file(name), "utf8"));
  }
  return directory;
}

/** A list of one revoked certificate, as PEM (RFC 5280, 5.1). */
export function makeRevocation(authority: Authority, certificate: string): string {
  const algorithm = sequence(objectIdentifier("1.2.840.10045.4.3.2"));
  const serial = Buffer.from(new X509Certificate(certificate).serialNumber, "hex");
  const [now, later] = [new Date(Date.now() - 60_000), new Date(Date.now() + 86_400_000)].map(time);
  if (now === undefined || later === undefined) throw new Error("no time");
  const revoked = sequence(sequence(integer(...serial), now));
  const list = sequence(integer(1), algorithm, authority.name, now, later, revoked);
  const signature = bitString(sign("sha256", list, authority.privateKey));
  const der = Buffer.from(sequence(list, algorithm, signature)).toString("base64");
  return `-----BEGIN X509 CRL-----\n${der.replaceAll(/.{64}/g, "$&\n")}\n-----END X509 CRL-----\n`;
}

function write(directory: TemporaryDirectory, name: string, text: string): void {
  writeFileSync(directory.file(name), text, { mode: 0o600 });
}
