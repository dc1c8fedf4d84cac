import { expect, test } from "bun:test";
import { explainTls } from "../../../src/tls/failures.ts";

/** An error as the library throws it. */
function libraryError(code: string, message = ""): Error {
  return Object.assign(new Error(message), { code });
}

test.each([
  ["CERT_HAS_EXPIRED", "", "CERT_EXPIRED"],
  ["CERT_NOT_YET_VALID", "", "CERT_NOT_YET_VALID"],
  ["CERT_REVOKED", "", "CERT_REVOKED"],
  ["UNABLE_TO_GET_CRL", "", "BAD_CRL"],
  ["CRL_HAS_EXPIRED", "", "BAD_CRL"],
  ["UNABLE_TO_GET_ISSUER_CERT_LOCALLY", "", "CERT_UNTRUSTED"],
  ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", "", "CERT_UNTRUSTED"],
  ["DEPTH_ZERO_SELF_SIGNED_CERT", "", "CERT_UNTRUSTED"],
  ["SELF_SIGNED_CERT_IN_CHAIN", "", "CERT_UNTRUSTED"],
  ["CERT_SIGNATURE_FAILURE", "", "CERT_UNTRUSTED"],
  ["INVALID_PURPOSE", "", "CERT_WRONG_PURPOSE"],
  ["ERR_TLS_CERT_ALTNAME_INVALID", "", "CERT_WRONG_NAME"],
  ["EPROTO", "SSL routines:PEER_DID_NOT_RETURN_A_CERTIFICATE", "NO_CERT"],
  ["EPROTO", "SSL routines:TLSV1_ALERT_CERTIFICATE_REQUIRED", "CERT_REFUSED"],
  ["EPROTO", "SSL routines:TLSV1_ALERT_UNKNOWN_CA", "CERT_REFUSED"],
  ["EPROTO", "SSL routines:UNSUPPORTED_PROTOCOL", "TLS_VERSION"],
  ["EPROTO", "SSL routines:TLSV1_ALERT_PROTOCOL_VERSION", "TLS_VERSION"],
  ["EPROTO", "SSL routines:WRONG_VERSION_NUMBER", "NO_TLS"],
  ["ECONNRESET", "Client network socket disconnected", "TLS_FAILED"],
])("%s %s is told of as %s", (code, message, told) => {
  const error = explainTls("tcp:192.0.2.7:4444", libraryError(code, message));
  expect(error.code).toBe(told);
  expect(error.message).toStartWith("tcp:192.0.2.7:4444 ");
});

test("only where they help are the library's own words the cause", () => {
  const names = libraryError(
    "ERR_TLS_CERT_ALTNAME_INVALID",
    "is not in the cert's altnames: DNS:a",
  );
  expect(explainTls("host2", names).cause).toBe(names);
  expect(
    explainTls("host2", libraryError("CERT_HAS_EXPIRED", "certificate has expired")).cause,
  ).toBe(undefined);
});
