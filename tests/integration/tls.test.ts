/** Migrations over TLS between two ends of ours, and who is not let in: each is told why. */
import { afterAll, expect } from "bun:test";
import { X509Certificate } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { makeCertificates, makeExpired, makeMixed } from "../helpers/certificates.ts";
import { withDeadline } from "../helpers/deadline.ts";
import { Link } from "../helpers/link.ts";
import {
  expectAgreement,
  expectMoved,
  pages,
  startDest,
  startSource,
} from "../helpers/migration.ts";
import type { DestRole } from "../helpers/migration.ts";
import { needUserfaultfd, requireOrSkip } from "../helpers/need.ts";
import { postcopyCommand, run } from "../helpers/spawn.ts";
import { TemporaryDirectory } from "../helpers/temporary-directory.ts";

const certificates = makeCertificates();
afterAll(() => certificates[Symbol.asyncDispose]());

const tlsTest = requireOrSkip(needUserfaultfd());
const TLS = ["--tls", certificates.path];
const SIZE = "16MiB";

tlsTest(
  "a guest moves over TLS, and on, and what it asks for on a channel of its own",
  async () => {
    const size = "16MiB";
    await using last = await startDest({ listen: "tcp:[::1]:0", flags: TLS });
    const onward = ["--onward", last.peer, "--switchover", "now"];
    // Off the loopback, without --insecure.
    await using dest = await startDest({ listen: "tcp:0.0.0.0:0", flags: [...TLS, ...onward] });
    const guest = `stress:size=${size},duration=100ms`;
    const flags = [...TLS, "--switchover", "now"];
    await using source = startSource({
      to: dest.peer.replace("0.0.0.0", "127.0.0.1"),
      guest,
      flags,
    });
    const [sent, got, end] = await Promise.all([source.end(), dest.end(), last.end()]);
    const ends = [sent, got, end].map(({ exitCode, stderr }) => ({ exitCode, stderr }));
    expect(ends).toMatchObject([{ exitCode: 0 }, { exitCode: 0 }, { exitCode: 0 }]);
    expectAgreement(sent.report, got.report, pages(size));
    expect(sent.report.urgentChannel).toBe(true);
    // The threads see only the bridge; who is told of is whoever is behind it.
    expect(got.report.peer).toStartWith("tcp:127.0.0.1:");
    expect(end.report.peer).toStartWith("tcp:[::1]:");
    expect(end.report).toMatchObject({ urgentChannel: true, audit: { pagesWrong: 0 } });
  },
);

tlsTest("a link over TLS that breaks: the guest is whole", async () => {
  await using dest = await startDest({ flags: TLS });
  await using link = await Link.start(dest.peer);
  // Most of it is missing when the guest runs, however late that is seen.
  link.holdBehind(2 ** 20);
  await using source = startSource({
    to: link.uri,
    guest: `stress:size=${SIZE},duration=300ms`,
    flags: [...TLS, "--switchover", "now", "--max-postcopy-bandwidth", "8MiB/s"],
  });
  await dest.event("running");
  link.cut();
  await Promise.all([source.phase("paused"), dest.phase("paused")]);
  link.mend(dest.peer);
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expect({ exitCode: sent.exitCode, stderr: sent.stderr }).toMatchObject({ exitCode: 0 });
  expect({ exitCode: got.exitCode, stderr: got.stderr }).toMatchObject({ exitCode: 0 });
  expect(sent.report).toMatchObject({ outcome: "completed", recoveries: 1 });
  expect(got.report.audit).toEqual({ pagesChecked: pages(SIZE), pagesWrong: 0 });
});

/** Tries to send a guest there; it stays. Gives what the operator is told. */
async function refused(
  to: string,
  flags: readonly string[],
  before: readonly string[] = [],
): Promise<string> {
  const guest = "stress:size=4MiB,duration=0s";
  await using source = startSource({ to, guest, flags, before });
  const { exitCode, error, stayed } = await source.end();
  expect(exitCode).toBe(1);
  expect(stayed?.pagesWrong).toBe(0);
  return error?.message ?? "";
}

/** Starts a program with variables that have other programs trust that directory as well. */
function misled(directory: TemporaryDirectory): string[] {
  const authority = directory.file("ca-cert.pem");
  return [
    ...["env", "NODE_TLS_REJECT_UNAUTHORIZED=0", `NODE_EXTRA_CA_CERTS=${authority}`],
    ...[`SSL_CERT_FILE=${authority}`, `SSL_CERT_DIR=${directory.path}`],
  ];
}

/** Has a destination that still waits end by itself, as what it has made goes with it. */
async function endWaiting(dest: DestRole): Promise<void> {
  dest.program.kill("SIGTERM");
  expect(await dest.end()).toMatchObject({ exitCode: 143 });
}

/** Waits until the destination has warned of somebody whom it turned away. */
async function warned(dest: DestRole, words: string): Promise<void> {
  await dest.event("warning", ({ message }) => message.includes(words));
}

tlsTest(
  "sources that are not trusted, or do not trust, are told why; the guest stays",
  async () => {
    await using others = makeCertificates();
    await using dest = await startDest({ flags: TLS, before: misled(others) });
    // Another authority: this source does not trust the destination.
    expect(await refused(dest.peer, ["--tls", others.path], misled(certificates))).toContain(
      "shows a certificate that the authority in ca-cert.pem has not signed",
    );
    await warned(dest, "broke the TLS connection off");
    // It trusts the destination, which does not trust it.
    await using mixed = makeMixed(certificates, others);
    expect(await refused(dest.peer, ["--tls", mixed.path])).toMatch(
      /ended the connection right after the TLS handshake|broke the TLS connection off/,
    );
    await warned(dest, "shows a certificate that the authority in ca-cert.pem has not signed");
    expect(await refused(dest.peer, [...TLS, "--tls-hostname", "host3.example"])).toContain(
      "shows a certificate that is for another name",
    );
    // No TLS at all.
    expect(await refused(dest.peer, [])).toContain("a TLS alert: the peer encrypts");
    await warned(dest, "does not speak TLS");
    // None of it was of any harm.
    await using source = startSource({ to: dest.peer, flags: TLS });
    const [sent, got] = await Promise.all([source.end(), dest.end()]);
    expectMoved(sent, got, pages("16MiB"));
  },
);

/** Whoever connects there with TLS sees this certificate; nothing else is done. */
function listenWith(directory: TemporaryDirectory): Bun.TCPSocketListener {
  const read = (name: string): string => readFileSync(directory.file(name), "utf8");
  const tls = { cert: read("server-cert.pem"), key: read("server-key.pem") };
  const socket = { data: () => undefined };
  return Bun.listen({ hostname: "127.0.0.1", port: 0, tls, socket });
}

tlsTest("a certificate that has expired is told of by whoever sees it", async () => {
  await using expired = makeExpired();
  const flags = ["--tls", expired.path];
  using listener = listenWith(expired);
  expect(await refused(`tcp:127.0.0.1:${listener.port}`, flags)).toContain(
    "shows a certificate that has expired",
  );
  const listen = ["dest", "--guest", "stress", "--listen", "tcp:127.0.0.1:0"];
  const { exitCode, stderr } = await run(postcopyCommand(...listen, ...flags));
  expect(exitCode).toBe(2);
  expect(stderr).toContain("server-cert.pem has expired");
});

/** The number of TLS 1.2, which Bun takes although its types do not have it. */
const UP_TO_TLS_1_2: object = { maxVersion: 0x0303 };

/** Connects, and waits until that has come to its end. */
async function connectWith(peer: string, tls: Bun.TLSOptions): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const ca = readFileSync(certificates.file("ca-cert.pem"), "utf8");
  const socket = { data: () => undefined, close: () => resolve(), error: () => undefined };
  const port = Number(peer.split(":").at(-1));
  await Bun.connect({ hostname: "127.0.0.1", port, tls: { ca, ...tls }, socket }).catch(resolve);
  await withDeadline(promise, "the end of the connection");
}

tlsTest("who shows no certificate, or speaks TLS 1.2, is turned away", async () => {
  await using dest = await startDest({ flags: TLS });
  await connectWith(dest.peer, {});
  await warned(dest, "shows no certificate");
  const cert = readFileSync(certificates.file("client-cert.pem"), "utf8");
  const key = readFileSync(certificates.file("client-key.pem"), "utf8");
  await connectWith(dest.peer, { cert, key, ...UP_TO_TLS_1_2 });
  await warned(dest, "does not speak TLS 1.3");
  await endWaiting(dest);
});

tlsTest("TLS to a destination that does not expect it: both are told", async () => {
  await using dest = await startDest();
  expect(await refused(dest.peer, TLS)).toContain("broke the TLS connection off");
  await warned(dest, "not a QEMU migration stream");
});

tlsTest("keygen makes what both ends need, by the command, once", async () => {
  await using place = new TemporaryDirectory("keygen");
  const directory = place.file("pki");
  const keygen = (...words: string[]) => run(postcopyCommand("keygen", directory, ...words));
  const made = await keygen("--host", "host2.example", "--host", "192.0.2.7", "--days", "30");
  expect(made).toMatchObject({ exitCode: 0, stdout: "" });
  expect(made.stderr).toContain("certificates for host2.example, 192.0.2.7, localhost");
  const { subjectAltName, validTo } = new X509Certificate(
    readFileSync(join(directory, "server-cert.pem")),
  );
  expect(subjectAltName).toContain("DNS:host2.example, IP Address:192.0.2.7");
  expect((Date.parse(validTo) - Date.now()) / 86_400_000).toBeCloseTo(30, 1);
  const again = await keygen();
  expect(again.exitCode).toBe(2);
  expect(again.stderr).toContain("is not empty, and nothing is overwritten");
  await using dest = await startDest({ flags: ["--tls", directory] });
  const flags = ["--tls", directory, "--tls-hostname", "host2.example"];
  await using source = startSource({
    to: dest.peer,
    guest: "stress:size=4MiB,duration=50ms",
    flags,
  });
  const [sent, got] = await Promise.all([source.end(), dest.end()]);
  expectMoved(sent, got, pages("4MiB"));
});

tlsTest("keygen leaves nothing where there is no room, and says why", async () => {
  await using place = new TemporaryDirectory("keygen");
  const noRoom = ["sh", "-c", 'trap "" XFSZ; ulimit -f 0; exec "$@"', "sh"];
  const directories = [place.file("new"), place.file("empty")] as const;
  mkdirSync(directories[1]);
  for (const directory of directories) {
    const { exitCode, stderr } = await run([...noRoom, ...postcopyCommand("keygen", directory)]);
    expect(exitCode).toBe(2);
    expect(stderr).toMatch(/cannot be written to: EFBIG/);
  }
  // What was not made by it stays.
  expect(readdirSync(place.path)).toEqual(["empty"]);
  expect(readdirSync(directories[1])).toEqual([]);
});

tlsTest("a port that is in use, and one where nobody is, are told of as without TLS", async () => {
  await using dest = await startDest({ flags: TLS });
  const second = await run(
    postcopyCommand("dest", "--guest", "stress", "--listen", dest.peer, ...TLS),
  );
  expect(second.exitCode).toBe(1);
  expect(second.stderr).toMatch(/Cannot listen on .*: listen\(.*\) failed: EADDRINUSE/);
  expect(second.stderr).toContain("hint: another program has it");
  await endWaiting(dest);
  await using source = startSource({
    to: dest.peer,
    guest: "stress:size=4MiB,duration=0s",
    flags: [...TLS, "--connect-timeout", "100ms"],
  });
  const { error, stderr, stayed } = await source.end();
  expect(error?.message).toMatch(/Cannot connect to .*: connect\(.*\) failed: ECONNREFUSED/);
  expect(stderr).toContain("Nobody is at");
  expect(stayed?.pagesWrong).toBe(0);
});
