/** What our own two ends say to each other, with an urgent channel and over a link that breaks. */
import { waitUntil } from "../helpers/deadline.ts";
import { Link } from "../helpers/link.ts";
import { startDest, startSource } from "../helpers/migration.ts";
import { LARGE_GUEST_BYTES, RECOVERY } from "./constants.ts";
import { packRuns } from "./page-records.ts";
import { Tap } from "./tap.ts";
import type { Tapped } from "./tap.ts";

const GUEST = "stress:size=1MiB,workers=1,duration=10ms,rate=1MiB/s";
const QEVM = Buffer.from("QEVM");
const PCUR = Buffer.from("PCUR");
const PCPU = Buffer.from("PCPU");

const LARGE_GUEST = `stress:size=${LARGE_GUEST_BYTES},workers=1,duration=10ms,rate=1MiB/s`;
/** What is kept of a push channel, and how much comes on each before any brings all the rest. */
const PUSHED_BYTES_MAX = 128 * 1024;

function joined(parts: readonly Buffer[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

function begins({ forward }: Tapped, start: Buffer): boolean {
  return Buffer.concat(forward).subarray(0, start.length).equals(start);
}

/** Records our own source and our own destination. */
export async function recordOwn(): Promise<Map<string, Uint8Array>> {
  const recordings = new Map<string, Uint8Array>();
  await using dest = await startDest({ guest: "stress" });
  await using tap = await Tap.start(dest.peer);
  const flags = ["--switchover", "now", "--max-postcopy-bandwidth", "512KiB/s"];
  await using source = startSource({ to: tap.uri, guest: GUEST, flags });
  await dest.phase("postcopy");
  await waitUntil(() => tap.connections.some((each) => begins(each, PCUR)), "an urgent channel");
  tap.cut();
  const [sent, received] = [await source.end(), await dest.end()];
  if (sent.exitCode !== 0 || received.exitCode !== 0)
    throw new Error(sent.stderr + received.stderr);
  for (const connection of tap.connections) {
    const { forward, back } = connection;
    if (begins(connection, QEVM)) {
      recordings.set("broken.own.cut", joined(forward));
      recordings.set("back.own.cut", joined(back));
    } else if (begins(connection, PCUR)) recordings.set("urgent.own", joined(forward));
    else if (begins(connection, RECOVERY)) {
      recordings.set("recovery.own", joined(forward));
      recordings.set("back.own.recovery", joined(back));
    }
  }
  return recordings;
}

/** The same without an accident: a whole stream, and a whole return path; and with compressed runs. */
export async function recordOwnWhole(): Promise<Map<string, Uint8Array>> {
  const packed = (await recordWhole("zstd")).get("stream.own");
  if (packed === undefined) throw new Error("nothing was recorded");
  return new Map([...(await recordWhole("off")), ["stream.own.packed", packed]]);
}

async function recordWhole(compress: "off" | "zstd"): Promise<Map<string, Uint8Array>> {
  await using dest = await startDest({ guest: "stress" });
  await using tap = await Tap.start(dest.peer);
  const flags = ["--switchover", "now", "--compress", compress];
  await using source = startSource({ to: tap.uri, guest: GUEST, flags });
  const [sent, received] = [await source.end(), await dest.end()];
  if (sent.exitCode !== 0 || received.exitCode !== 0)
    throw new Error(sent.stderr + received.stderr);
  const main = tap.connections.find((each) => begins(each, QEVM));
  if (main === undefined) throw new Error("no stream went by");
  return new Map([
    ["stream.own", joined(main.forward)],
    ["back.own", joined(main.back)],
  ]);
}

/** The beginnings of the push channels beside the main one: with runs as they came, and compressed. */
export async function recordPushed(): Promise<Map<string, Uint8Array>> {
  const channels = ["--channels", "3"];
  await using dest = await startDest({ guest: "stress", flags: channels });
  await using tap = await Tap.start(dest.peer);
  await using link = await Link.start(tap.uri);
  link.holdBehind(PUSHED_BYTES_MAX);
  const flags = ["--switchover", "now", "--compress", "off", ...channels];
  await using source = startSource({ to: link.uri, guest: LARGE_GUEST, flags });
  const pushed = (): Tapped[] => tap.connections.filter((each) => begins(each, PCPU));
  const isLong = ({ forward }: Tapped): boolean => joined(forward).length >= PUSHED_BYTES_MAX;
  await waitUntil(() => pushed().length === 2 && pushed().every(isLong), "pages on each channel");
  link.carryOn();
  const [sent, received] = [await source.end(), await dest.end()];
  if (sent.exitCode !== 0 || received.exitCode !== 0)
    throw new Error(sent.stderr + received.stderr);
  const begun = pushed().map(({ forward }) => joined(forward).slice(0, PUSHED_BYTES_MAX));
  return new Map(
    begun.flatMap((bytes, index) => [
      [`push.own.${index + 1}`, bytes],
      [`push.own.packed.${index + 1}`, packRuns(bytes)],
    ]),
  );
}
