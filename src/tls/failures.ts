/** What goes wrong with TLS, in the words of an operator. The library's own words are the cause. */
import { PostcopyError } from "../util/errors.ts";

/** A connection over TLS that was not made, or broke; the code says what it is about. */
export class TlsError extends PostcopyError {}

interface Explanation {
  /** What the library's code or words contain. */
  pattern: RegExp;
  code: string;
  /** Behind the name of the peer. */
  says: string;
  hint?: string;
}

const SAME_AUTHORITY =
  "both ends need certificates of one authority: copy what one postcopy keygen has made";

/** The first that fits. */
const EXPLANATIONS: readonly Explanation[] = [
  {
    pattern: /CRL/,
    code: "BAD_CRL",
    says: "shows a certificate that ca-crl.pem, as it is, says nothing about",
    hint: "look at its dates, and whether it is of the authority in ca-cert.pem",
  },
  {
    pattern: /CERT_HAS_EXPIRED/,
    code: "CERT_EXPIRED",
    says: "shows a certificate that has expired",
    hint: "make new ones with postcopy keygen, and look at the clocks of both hosts",
  },
  {
    pattern: /CERT_NOT_YET_VALID/,
    code: "CERT_NOT_YET_VALID",
    says: "shows a certificate that is not valid yet",
    hint: "look at the clocks of both hosts",
  },
  {
    pattern: /CERT_REVOKED/,
    code: "CERT_REVOKED",
    says: "shows a certificate that ca-crl.pem revokes",
  },
  {
    pattern: /ALTNAME|HOSTNAME_MISMATCH|IP_ADDRESS_MISMATCH/,
    code: "CERT_WRONG_NAME",
    says: "shows a certificate that is for another name",
    hint: "say which with --tls-hostname, or make one with postcopy keygen --host",
  },
  {
    pattern: /SELF_SIGNED|UNABLE_TO_VERIFY|UNABLE_TO_GET|CERT_SIGNATURE|CERT_UNTRUSTED|INVALID_CA/,
    code: "CERT_UNTRUSTED",
    says: "shows a certificate that the authority in ca-cert.pem has not signed",
    hint: SAME_AUTHORITY,
  },
  {
    pattern: /INVALID_PURPOSE/,
    code: "CERT_WRONG_PURPOSE",
    says: "shows a certificate that was made for another purpose",
    hint: "client-cert.pem is for a source, server-cert.pem for a destination",
  },
  {
    pattern: /PEER_DID_NOT_RETURN_A_CERTIFICATE/,
    code: "NO_CERT",
    says: "shows no certificate",
    hint: "a source needs client-cert.pem and client-key.pem in the directory of its --tls",
  },
  {
    pattern: /ALERT_(CERTIFICATE|BAD_CERTIFICATE|UNKNOWN_CA|UNSUPPORTED_CERTIFICATE)|ALERT_ACCESS/,
    code: "CERT_REFUSED",
    says: "does not take the certificate of this end",
    hint: SAME_AUTHORITY,
  },
  {
    pattern: /UNSUPPORTED_PROTOCOL|ALERT_PROTOCOL_VERSION/,
    code: "TLS_VERSION",
    says: "does not speak TLS 1.3",
  },
  {
    pattern: /WRONG_VERSION_NUMBER|HTTP_REQUEST|HTTPS_PROXY|UNEXPECTED_RECORD|INVALID_RECORD/,
    code: "NO_TLS",
    says: "does not speak TLS",
    hint: "both ends need TLS: --tls here, tls-creds in a QEMU",
  },
];

/** A handshake that failed, or only seems to have succeeded, without an error. */
export function unexplained(): Error {
  return new Error("the TLS library does not say why");
}

/** What a failure of a handshake, or after it, says of the peer named `peer`. */
export function explainTls(peer: string, cause: Error): TlsError {
  const text = `${"code" in cause ? String(cause.code) : ""} ${cause.message}`;
  const found = EXPLANATIONS.find(({ pattern }) => pattern.test(text));
  if (found === undefined) {
    return new TlsError("TLS_FAILED", `${peer} broke the TLS connection off`, {
      cause,
      hint: "it may not trust the certificate of this end, or not expect TLS: see what it printed",
    });
  }
  const { code, says, hint } = found;
  // The library's words are for those who know it, but for the names that a certificate is for.
  return new TlsError(code, `${peer} ${says}`, {
    ...(code === "CERT_WRONG_NAME" ? { cause } : {}),
    ...(hint === undefined ? {} : { hint }),
  });
}

/**
 * In TLS 1.3 a client is done before the server has looked at its certificate, and not every server
 * says what it holds against it: it closes the connection, before it has said anything.
 */
export function endedUnheard(peer: string): TlsError {
  return new TlsError("TLS_FAILED", `${peer} ended the connection right after the TLS handshake`, {
    hint: "it may not trust client-cert.pem; what the other end printed says more",
  });
}
