/** Directories of certificates for tests of TLS, as `postcopy keygen` makes them. */
import { writeFileSync } from "node:fs";
import { makeAuthority, makeCredential } from "../../src/tls/certificate.ts";
import { FILES } from "../../src/tls/credentials.ts";
import { makeDirectory } from "../../src/tls/keygen.ts";
import { TemporaryDirectory } from "./temporary-directory.ts";

/** Where the destinations of a test listen, and a name that they go by as well. */
const HOSTS = ["127.0.0.1", "host2.example"];

/** A directory for both ends; a server in it has the certificate of `hosts`. */
export function makeCertificates(hosts: readonly string[] = HOSTS): TemporaryDirectory {
  const directory = new TemporaryDirectory("tls");
  makeDirectory(directory.path, hosts, 1);
  return directory;
}

/** Such directories of the same authority, of which one has a server's certificate that has expired. */
export function makeExpired(): TemporaryDirectory {
  const directory = makeCertificates();
  const authority = makeAuthority({ days: 1 });
  // The clock skew that is allowed for is an hour.
  const server = makeCredential(authority, "server", HOSTS, { days: -1 / 1440 });
  const client = makeCredential(authority, "client", [], { days: 1 });
  const files: Record<string, string> = {
    [FILES.authority]: authority.certificate,
    [FILES.server.certificate]: server.certificate,
    [FILES.server.key]: server.key,
    [FILES.client.certificate]: client.certificate,
    [FILES.client.key]: client.key,
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(directory.file(name), text);
  return directory;
}
