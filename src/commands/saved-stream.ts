/** `source --guest stream:FILE`: the file becomes a guest, and people hear how. */
import { openStream } from "../threads/stream-index.ts";
import type { StreamOpening } from "../threads/stream-index.ts";
import { log } from "../util/log.ts";
import { formatBytes } from "../util/units.ts";
import type { Output } from "./common.ts";
import type { OpenedFiles } from "./opened-guest.ts";

/** How often it is said how far the file is read. */
const NEWS_INTERVAL_MS = 2000;

/** @throws UsageError, HostError, StreamError, PostcopyError: see `openStream`. */
export async function openSavedStream(path: string, output: Output): Promise<OpenedFiles> {
  let timer: ReturnType<typeof setInterval> | undefined;
  try {
    const opening = await openStream(path, {
      unusable: (why) => output.warn("STALE_INDEX", `The index of ${path} ${why}; it is made anew`),
      reading: ({ saved, identity }, at) => {
        const packed = saved.compression;
        const of = packed === undefined ? ` of ${formatBytes(identity.size)}` : " unpacked";
        timer = setInterval(() => {
          log.info(`Reading ${path} to find its pages: ${formatBytes(at())}${of}`);
        }, NEWS_INTERVAL_MS);
      },
    });
    tell(opening, output);
    const { stream } = opening;
    return {
      guest: { kind: "stream", stream },
      guestText: `${kindOf(opening)} of ${stream.machineType} in ${path}`,
      recordPath: undefined,
      workingSet: undefined,
      replay: new Uint32Array(),
      watch: false,
    };
  } finally {
    clearInterval(timer);
  }
}

function kindOf({ file: { saved } }: StreamOpening): string {
  if (saved.libvirt !== undefined) return `libvirt save image (${saved.libvirt.format})`;
  return saved.compression === undefined ? "saved stream" : `saved stream (${saved.compression})`;
}

function tell({ file, index, stream, unkept }: StreamOpening, output: Output): void {
  const { path, saved } = file;
  if (saved.libvirt?.wasRunning === false) {
    log.info(`${path}: the guest was paused when libvirt saved it`);
  }
  switch (index) {
    case "kept":
      log.debug(`${path}: its pages are known from the index beside it`);
      break;
    case "made":
      log.info(`${path}: the index of its pages is kept beside it, for the next time`);
      break;
    case "made for this use":
      output.warn(
        "INDEX_NOT_KEPT",
        `The index of ${path} cannot be kept beside it${unkept === undefined ? "" : `: ${unkept}`}`,
      );
      break;
    case "bitmaps":
      log.info(
        `${path}: a mapped-ram file has no checksums; its pages are served as they are there`,
      );
      break;
  }
  log.debug(
    `${path}: ${stream.blocks.length} RAM blocks, device state ${stream.package.length} bytes`,
  );
}
