/**
 * Certificates as a migration needs them (RFC 5280): an authority, and what it signs for a server
 * and a client. EC P-256, which BoringSSL here and GnuTLS in a QEMU know alike. They are only written
 * here; reading and checking them is the business of the TLS library.
 */
import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { isIP } from "node:net";
import { parseInet, parseInet6 } from "../../syscalls/inet.ts";
import {
  bitFlags,
  bitString,
  booleanTrue,
  explicit,
  implicit,
  integer,
  objectIdentifier,
  octetString,
  sequence,
  set,
  time,
  utf8String,
} from "./der.ts";

const OID = {
  commonName: "2.5.4.3",
  subjectKeyIdentifier: "2.5.29.14",
  keyUsage: "2.5.29.15",
  subjectAltName: "2.5.29.17",
  basicConstraints: "2.5.29.19",
  authorityKeyIdentifier: "2.5.29.35",
  extendedKeyUsage: "2.5.29.37",
  serverAuth: "1.3.6.1.5.5.7.3.1",
  clientAuth: "1.3.6.1.5.5.7.3.2",
  ecdsaWithSha256: "1.2.840.10045.4.3.2",
} as const;

/** Bits of keyUsage. */
const USAGE = { digitalSignature: 0, keyEncipherment: 2, keyCertSign: 5, crlSign: 6 } as const;
/** Kinds of a GeneralName. */
const NAME = { dns: 2, ip: 7 } as const;
const VERSION_3 = 2;
/** How a point that has both coordinates begins (SEC 1, 2.3.3). */
const UNCOMPRESSED_POINT = 4;
const SERIAL_BYTES = 16;
/** A clock that is behind by less than this takes a certificate that was made just now. */
const CLOCK_SKEW_MS = 3_600_000;
const DAY_MS = 86_400_000;

/** A certificate and its key. */
export interface Credential {
  /** PEM. */
  certificate: string;
  /** PEM, PKCS #8. */
  key: string;
}

/** Who signs. */
export interface Authority extends Credential {
  readonly name: Uint8Array;
  readonly privateKey: KeyObject;
  readonly keyId: Uint8Array;
}

/** From when until when, in days from now. */
export interface Validity {
  days: number;
}

/** Makes an authority. Its name tells it from any other, so that a mix-up shows. */
export function makeAuthority(validity: Validity): Authority {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const keyId = keyIdentifier(publicKey);
  const name = commonName(`postcopy authority ${Buffer.from(keyId).toString("hex", 0, 4)}`);
  const authority = { name, privateKey, keyId, key: keyPem(privateKey) };
  const certificate = issue(authority, name, publicKey, validity, [
    extension(OID.basicConstraints, sequence(booleanTrue()), true),
    extension(OID.keyUsage, bitFlags(USAGE.keyCertSign, USAGE.crlSign), true),
    extension(OID.subjectKeyIdentifier, octetString(keyId)),
  ]);
  return { ...authority, certificate };
}

/**
 * Makes a certificate for one end. `hosts` are the names and addresses that whoever connects may
 * know a server by; a client has none.
 */
export function makeCredential(
  authority: Authority,
  end: "server" | "client",
  hosts: readonly string[],
  validity: Validity,
): Credential {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const purpose = end === "server" ? OID.serverAuth : OID.clientAuth;
  const extensions = [
    extension(OID.basicConstraints, sequence(), true),
    // QEMU wants the second as well, which only RSA has a use for.
    extension(OID.keyUsage, bitFlags(USAGE.digitalSignature, USAGE.keyEncipherment), true),
    extension(OID.extendedKeyUsage, sequence(objectIdentifier(purpose))),
    extension(OID.subjectKeyIdentifier, octetString(keyIdentifier(publicKey))),
    extension(OID.authorityKeyIdentifier, sequence(implicit(0, authority.keyId))),
  ];
  if (hosts.length > 0) {
    extensions.push(extension(OID.subjectAltName, sequence(...hosts.map(generalName))));
  }
  const name = commonName(`postcopy ${end}`);
  const certificate = issue(authority, name, publicKey, validity, extensions);
  return { certificate, key: keyPem(privateKey) };
}

/** TBSCertificate and its signature, as PEM. */
function issue(
  authority: Pick<Authority, "name" | "privateKey">,
  subject: Uint8Array,
  publicKey: KeyObject,
  { days }: Validity,
  extensions: readonly Uint8Array[],
): string {
  const now = Date.now();
  const algorithm = sequence(objectIdentifier(OID.ecdsaWithSha256));
  const [from, until] = [now - CLOCK_SKEW_MS, now + days * DAY_MS];
  const content = sequence(
    explicit(0, integer(VERSION_3)),
    integer(...randomBytes(SERIAL_BYTES)),
    algorithm,
    authority.name,
    sequence(time(new Date(from)), time(new Date(until))),
    subject,
    publicKey.export({ type: "spki", format: "der" }),
    explicit(3, sequence(...extensions)),
  );
  const signature = bitString(sign("sha256", content, authority.privateKey));
  return pem("CERTIFICATE", sequence(content, algorithm, signature));
}

function extension(oid: string, value: Uint8Array, critical = false): Uint8Array {
  const flag = critical ? [booleanTrue()] : [];
  return sequence(objectIdentifier(oid), ...flag, octetString(value));
}

function commonName(text: string): Uint8Array {
  return sequence(set(sequence(objectIdentifier(OID.commonName), utf8String(text))));
}

function generalName(host: string): Uint8Array {
  return isIP(host) === 0
    ? implicit(NAME.dns, Buffer.from(host))
    : implicit(NAME.ip, addressBytes(host));
}

function addressBytes(host: string): Uint8Array {
  return Uint8Array.from(isIP(host) === 4 ? parseInet(host) : parseInet6(host));
}

/** The SHA-1 of the key's bits, as everybody does it; it only finds keys (RFC 5280, 4.2.1.2). */
function keyIdentifier(publicKey: KeyObject): Uint8Array {
  const { x = "", y = "" } = publicKey.export({ format: "jwk" });
  const coordinates = [x, y].map((text) => Buffer.from(text, "base64url"));
  const point = Buffer.concat([Uint8Array.of(UNCOMPRESSED_POINT), ...coordinates]);
  return createHash("sha1").update(point).digest();
}

function keyPem(key: KeyObject): string {
  return key.export({ type: "pkcs8", format: "pem" });
}

function pem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ""].join("\n");
}
