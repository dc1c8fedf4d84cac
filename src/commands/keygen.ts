/** `postcopy keygen`: the certificates that `--tls` needs, made here. */
import { isIP } from "node:net";
import { hostname } from "node:os";
import * as z from "zod";
import { makeDirectory } from "../tls/keygen.ts";
import { UsageError } from "../util/errors.ts";
import { log } from "../util/log.ts";
import { fromText, integerSchema } from "../util/schemas.ts";
import { quoted } from "../util/units.ts";
import { checkCommon, COMMON_FLAGS, openOutput } from "./common.ts";
import { defaultFlag, defineStrictCommand, repeatedFlag, requiredWord } from "./strict.ts";

/** Longest validity that one can ask for: twenty years. */
const DAYS_MAX = 7300;
const LOCAL_HOSTS = ["localhost", "127.0.0.1", "::1"] as const;
/** A name as DNS has them (RFC 1123), which may begin with a wildcard. */
const DNS_NAME =
  /^(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i;
const DNS_NAME_MAX = 253;

/** A host of --host: a DNS name or an IP address without a zone. @throws UsageError BAD_HOST. */
export function parseHost(text: string): string {
  const isName = text.length <= DNS_NAME_MAX && DNS_NAME.test(text);
  if (!text.includes("%") && (isIP(text) !== 0 || isName)) return text;
  throw new UsageError("BAD_HOST", `${quoted(text)} is neither a host name nor an IP address`, {
    hint: "write it as a source would connect to it, without a port",
  });
}

export const keygen = defineStrictCommand({
  name: "keygen",
  description: "Make the certificates that --tls and a QEMU's tls-creds-x509 need",
  flags: {
    directory: requiredWord(z.string().min(1), "Where to put them: nothing may be there yet"),
    host: repeatedFlag(fromText(parseHost), {
      valueHint: "NAME",
      description:
        "A name or address of a destination; may be repeated (default: this host's name)",
    }),
    days: defaultFlag(integerSchema(1, DAYS_MAX), {
      valueHint: "DAYS",
      description: "How long they are valid",
      default: "365",
    }),
    ...COMMON_FLAGS,
  },
  example: "postcopy keygen /etc/postcopy --host host2.example.org --host 192.0.2.7",
  check: checkCommon,
  run: async (options) => {
    await openOutput(options);
    const { directory, days } = options;
    // Local ones are always in it: a tunnel, or a test on one host, ends there.
    const named = options.host.length > 0 ? options.host : [hostname()];
    const hosts = [...new Set([...named, ...LOCAL_HOSTS])];
    makeDirectory(directory, hosts, days);
    log.info(`${directory} holds certificates for ${hosts.join(", ")}, valid for ${days} days`);
    log.info(
      "Copy it to both hosts, readable by its owner only, and leave ca-key.pem out: it is needed " +
        "only to make more certificates. Whoever has the rest can send and receive guests.",
    );
  },
});
