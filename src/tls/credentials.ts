/**
 * The files of one end: the directory of a QEMU's tls-creds-x509, so that both can use the same.
 */
import { X509Certificate, createPrivateKey } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { UsageError } from "../util/errors.ts";

/** Names in the directory, as QEMU has them; the last is ours, and of no use to a migration. */
export const FILES = {
  authority: "ca-cert.pem",
  revoked: "ca-crl.pem",
  server: { certificate: "server-cert.pem", key: "server-key.pem" },
  client: { certificate: "client-cert.pem", key: "client-key.pem" },
  authorityKey: "ca-key.pem",
} as const;

/** Which end: whoever listens is the server, also of a recovery. */
export type TlsEnd = "server" | "client";

/** PEM texts. */
export interface Credentials {
  end: TlsEnd;
  authority: string;
  certificate: string;
  key: string;
  /** Revoked certificates, where there is a list. */
  revoked: string | undefined;
}

/** Permissions of others than the owner. */
const OTHERS = 0o077;

/**
 * Reads what an end needs from its directory. @throws UsageError BAD_TLS: a file is missing, is not
 * what it should be, or a key can be read by others.
 */
export function readCredentials(directory: string, end: TlsEnd): Credentials {
  const own = FILES[end];
  const authority = readPem(directory, FILES.authority);
  const certificate = readPem(directory, own.certificate);
  checkPrivate(join(directory, own.key));
  const key = readPem(directory, own.key);
  const revoked = existingPem(directory, FILES.revoked);
  const parsed = parseCertificate(join(directory, own.certificate), certificate);
  checkPair(directory, end, parsed, key);
  checkDates(join(directory, own.certificate), parsed);
  const authorityPath = join(directory, FILES.authority);
  checkDates(authorityPath, parseCertificate(authorityPath, authority));
  return { end, authority, certificate, key, revoked };
}

function readPem(directory: string, name: string): string {
  const path = join(directory, name);
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new UsageError("BAD_TLS", `${path} cannot be read`, {
      cause,
      hint: "postcopy keygen DIRECTORY makes all that --tls needs",
    });
  }
}

function existingPem(directory: string, name: string): string | undefined {
  const exists = statSync(join(directory, name), { throwIfNoEntry: false }) !== undefined;
  return exists ? readPem(directory, name) : undefined;
}

/** As ssh does: a key that others can read is not secret, and whoever made it so should know. */
function checkPrivate(path: string): void {
  const mode = statSync(path, { throwIfNoEntry: false })?.mode ?? 0;
  if ((mode & OTHERS) === 0) return;
  const text = (mode & 0o777).toString(8).padStart(4, "0");
  throw new UsageError("BAD_TLS", `${path} can be used by others than its owner (mode ${text})`, {
    hint: `chmod 600 ${path}`,
  });
}

function parseCertificate(path: string, pem: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw new UsageError("BAD_TLS", `${path} is no certificate`, { cause });
  }
}

/** Here it can be said; the other end would only turn us away. */
function checkDates(path: string, { validFrom, validTo }: X509Certificate): void {
  const now = Date.now();
  const wrong = now > Date.parse(validTo) ? "has expired" : "is not valid yet";
  if (now >= Date.parse(validFrom) && now <= Date.parse(validTo)) return;
  throw new UsageError("BAD_TLS", `${path} ${wrong} (valid from ${validFrom} to ${validTo})`, {
    hint: "look at this host's clock, or make a new one with postcopy keygen",
  });
}

function checkPair(
  directory: string,
  end: TlsEnd,
  certificate: X509Certificate,
  key: string,
): void {
  const keyPath = join(directory, FILES[end].key);
  let isPair: boolean;
  try {
    isPair = certificate.checkPrivateKey(createPrivateKey(key));
  } catch (cause) {
    throw new UsageError("BAD_TLS", `${keyPath} is no private key`, { cause });
  }
  if (isPair) return;
  throw new UsageError("BAD_TLS", `${keyPath} is not the key of ${FILES[end].certificate}`);
}
