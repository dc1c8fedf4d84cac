/**
 * The compressed pages of a multifd channel. The source compresses all that it sends on a channel
 * as one stream of zlib or zstd, flushed at the end of each packet (QEMU's multifd-zlib.c and
 * multifd-zstd.c): what a packet says can be unpacked with it, and only after all before it.
 */
import { constants, Inflate, ZstdDecompress } from "minizlib";
import { MULTIFD_PAGES, TARGET_PAGE_SIZE } from "./constants.ts";
import type { MultifdCompression } from "./multifd.ts";
import { refuse } from "./refuse.ts";

/** What the pages of a packet have at most: unpacking stops there, whatever the source sends. */
const UNPACKED_BYTES_MAX = MULTIFD_PAGES * TARGET_PAGE_SIZE;

const OPTIONS = { chunkSize: UNPACKED_BYTES_MAX, maxOutputLength: UNPACKED_BYTES_MAX };

export class MultifdUnpacker {
  readonly compression: Exclude<MultifdCompression, "none">;
  readonly #stream: Inflate | ZstdDecompress;
  /** Where the pages of the packet go, and how many bytes of it are there. */
  #pages: Uint8Array = new Uint8Array(0);
  #bytes = 0;
  #failed = false;

  constructor(compression: Exclude<MultifdCompression, "none">) {
    this.compression = compression;
    this.#stream =
      compression === "zlib"
        ? new Inflate({ ...OPTIONS, flush: constants.Z_SYNC_FLUSH })
        : new ZstdDecompress({ ...OPTIONS, flush: constants.ZSTD_e_flush });
    this.#stream.on("data", (part) => this.#take(part));
    this.#stream.on("error", () => (this.#failed = true));
  }

  /** Unpacks the data of one packet into `pages`, which it must fill; `offset` is for errors. */
  unpack(data: Uint8Array, pages: Uint8Array, offset: number): void {
    this.#pages = pages;
    this.#bytes = 0;
    // The library writes synchronously: when it returns, all that the data say has been given.
    this.#stream.write(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    if (!this.#failed && this.#bytes === pages.length) return;
    const what = `The ${this.compression} data of a multifd packet`;
    refuse("BAD_PAGE", `${what} do not unpack to its ${pages.length} bytes of pages`, offset);
  }

  #take(part: Uint8Array | string): void {
    if (typeof part === "string") throw new Error("an unpacker that gives text");
    const room = this.#pages.length - this.#bytes;
    this.#pages.set(part.subarray(0, room), this.#bytes);
    this.#bytes += part.length;
  }
}
