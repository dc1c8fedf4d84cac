/**
 * The device state of a guest that completed in precopy, taken from the main channel as it comes: it
 * has no length, and most sources keep the connection open behind it.
 */
import { ChannelError } from "../channel/channel.ts";
import type { Channel } from "../channel/channel.ts";
import { timeFor } from "../channel/time-limits.ts";
import { ArrivingTail } from "../stream/arriving-tail.ts";
import type { ArrivedDevices } from "../stream/arriving-tail.ts";
import { DEVICE_TAIL_BYTES_MAX } from "../stream/device-tail.ts";
import { packageOfSections } from "../stream/package.ts";
import { StreamError } from "../util/errors.ts";

/**
 * How long the source may send nothing where its device state may be whole: the description, which
 * it writes right behind, is not to come then. Its guest stands meanwhile.
 */
const DESCRIPTION_PAUSE_MS = 5000;

/**
 * Takes everything behind memory, up to the end of the stream, as a package and the description that
 * came with it. `linkTimeoutMs` is how long the source may send nothing before that.
 * @throws StreamError, ChannelError when it breaks off or does not end.
 */
export function takeDeviceState(
  channel: Channel,
  linkTimeoutMs: number,
): { bytes: Uint8Array; vmDescription: string | undefined } {
  const at = channel.reader.offset;
  const { sections, vmDescription } = readToEnd(channel, linkTimeoutMs);
  return { bytes: packageOfSections(sections, at), vmDescription };
}

function readToEnd(channel: Channel, linkTimeoutMs: number): ArrivedDevices {
  const { reader } = channel;
  const tail = new ArrivingTail(reader.offset);
  channel.timeoutMs = linkTimeoutMs;
  channel.allow(timeFor(DEVICE_TAIL_BYTES_MAX, linkTimeoutMs), "send the device state");
  try {
    while (!reader.ended) {
      tail.append(reader.bytes.subarray(reader.pos, reader.end));
      reader.pos = reader.end;
      const { devices } = tail;
      if (devices !== undefined) return devices;
      const pauseMs = tail.mayBeWhole ? DESCRIPTION_PAUSE_MS : linkTimeoutMs;
      channel.timeoutMs = Math.min(pauseMs, linkTimeoutMs);
    }
  } catch (error) {
    const isSilent = error instanceof ChannelError && error.code === "PEER_SILENT";
    if (isSilent && tail.mayBeWhole) refuseUndescribed(error);
    throw error;
  } finally {
    channel.timeoutMs = Infinity;
    channel.allowAnyTime();
  }
  return tail.close();
}

/** Nothing more came; that this was all, and no link that stands still, nobody can tell. */
function refuseUndescribed(cause: ChannelError): never {
  const message =
    "The source sends no description of its device state (suppress-vmdesc=on) and keeps the " +
    "connection open, so that nothing shows where that state ends";
  throw new StreamError("NO_DESCRIPTION", message, {
    cause,
    hint:
      "at the QEMU: postcopy-ram on, and migrate_start_postcopy while it sends memory; or " +
      "postcopy-ram and return-path off, so that it closes the connection at the end",
  });
}

/**
 * Device state has no length: before the end of memory nobody can tell where it ends. With the
 * capability `background-snapshot` QEMU does not end the section of memory at all.
 */
export function refuseEarlyDevice(idstr: string): never {
  throw new StreamError(
    "UNSUPPORTED_DEVICE",
    `The state of "${idstr}" comes before the end of memory, where it cannot be kept`,
    {
      hint:
        "remove that device (such as virtio-mem) from the guest; or, at the QEMU: " +
        "migrate_set_capability background-snapshot off",
    },
  );
}

/** What this program sends of a guest of its own is not described, and ends where nobody can tell. */
export function refuseOwnDevices(): never {
  throw new StreamError(
    "UNSUPPORTED_DEVICE",
    "The guest came in precopy alone, and this program's own guests cannot be kept that way",
    { hint: "at the source: --switchover now" },
  );
}
