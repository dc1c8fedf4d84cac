/** A guest that is kept: its pages go to files, its device state stays as it came. */
import { punchHole } from "../../../syscalls/fallocate.ts";
import type {
  ArrivedPart,
  DestGuest,
  DeviceLoading,
  ReceiveBuffer,
  StreamFacts,
} from "../../dest/guest.ts";
import type { PageState } from "../../dest/shared.ts";
import type { RamBlock } from "../../ram/block.ts";
import { targetPages } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import type { StreamConfiguration } from "../../stream/header.ts";
import type { RamSetupBlock } from "../../stream/ram-setup.ts";
import { uuidText } from "../../stream/uuid.ts";
import { bootId } from "../../util/processes.ts";
import { StreamError } from "../../util/errors.ts";
import { PROGRAM, VERSION } from "../../util/version.ts";
import { SnapshotFiles } from "./files.ts";
import { ARRIVAL_FORMAT, PAGE_TO_COME } from "./arrival.ts";
import type { Arrival, TakenOver } from "./arrival.ts";
import { readArrivedPages } from "./arrived-pages.ts";
import {
  ARRIVAL_FILE,
  manifestBytesMax,
  MANIFEST_FILE,
  PACKAGE_FILE,
  ramFile,
  sha256,
  SNAPSHOT_FORMAT,
  SNAPSHOT_VERSION,
  SUM_BYTES,
  sumsFile,
  VM_DESCRIPTION_FILE,
} from "./layout.ts";
import type { Manifest, ManifestBlock, ManifestFile } from "./layout.ts";
import { ZERO_PAGE_SUM } from "../stored/page-sum.ts";
import { forEachZeroRun } from "./page-runs.ts";
import { PrecopyStoreSink } from "./store-sink.ts";
import type { StoreData } from "./store-sink.ts";

const MANIFEST_DRAFT = `${MANIFEST_FILE}.tmp`;
const ARRIVAL_DRAFT = `${ARRIVAL_FILE}.tmp`;

/**
 * Shorter runs of zeros keep the room that was reserved for them: ext4 takes up to a millisecond a
 * hole, and the memory that a guest has never used comes in long runs.
 */
const PUNCH_PAGES_MIN = 16;

/** What was kept, for the report. */
export interface KeptSnapshot {
  directory: string;
  pagesStored: number;
  deviceBytes: number;
}

export class SnapshotDestGuest implements DestGuest {
  readonly memory = "stored";
  readonly devices: DeviceLoading = {
    kind: "opaque",
    keep: (bytes, vmDescription) => {
      this.#files.reserveFile(PACKAGE_FILE, bytes.length);
      this.#package = bytes;
      if (vmDescription === undefined) return;
      this.#vmDescription = new Uint8Array(Buffer.from(vmDescription, "latin1"));
      this.#files.reserveFile(VM_DESCRIPTION_FILE, this.#vmDescription.length);
    },
  };
  readonly #files: SnapshotFiles;
  readonly #kept: (snapshot: KeptSnapshot) => void;
  #machineType = "";
  #blocks: RamBlock[] = [];
  #uuid: string | undefined;
  #package: Uint8Array | undefined;
  /** The package as the manifest names it, once it is durable. */
  #packageFile: ManifestFile | undefined;
  #vmDescription: Uint8Array | undefined;
  #data: StoreData | undefined;
  readonly #takenOver: TakenOver | undefined;

  /**
   * `directory` is ours (directory.ts), and empty but for a guest that is to be resumed. `kept` is
   * told once the snapshot is complete.
   */
  constructor(directory: string, kept: (snapshot: KeptSnapshot) => void, takenOver?: TakenOver) {
    this.#files = new SnapshotFiles(directory);
    this.#takenOver = takenOver;
    this.#kept = kept;
  }

  configure(configuration: StreamConfiguration | undefined): void {
    const capabilities = configuration?.capabilities ?? [];
    if (capabilities.length > 0) {
      throw new StreamError(
        "UNSUPPORTED_CAPABILITY",
        `The source migrates with the capability ${capabilities.join(", ")}, which a snapshot ` +
          "cannot keep",
        { hint: "switch it off at the source (migrate_set_capability)" },
      );
    }
    this.#machineType = configuration?.machine ?? "";
    if (configuration?.uuid !== undefined) this.#uuid = uuidText(configuration.uuid);
  }

  /** Makes the files, with room for all of them but RAM and the package. */
  prepareMemory(setup: readonly RamSetupBlock[]): RamBlock[] {
    this.#blocks = setup.map(({ name, length, pageSize }, index) => {
      if (length >= pageSize) return { index, name, length, pageSize, address: 0 };
      const message = `The RAM block "${name}" of ${length} bytes has pages of ${pageSize}`;
      throw new StreamError("PAGE_SIZE", message);
    });
    const files = this.#blocks.map(({ index, length }) => {
      return this.#files.create(ramFile(index), length);
    });
    const sums = this.#blocks.map((block) => {
      const shared = new SharedArrayBuffer(targetPages(block) * 4);
      new Uint32Array(shared).fill(ZERO_PAGE_SUM);
      return shared;
    });
    const sumFiles = this.#blocks.map((block) => this.#reserveSums(block));
    for (const draft of [MANIFEST_DRAFT, ARRIVAL_DRAFT]) {
      this.#files.reserveFile(draft, manifestBytesMax(this.#blocks.length));
    }
    this.#data = { directory: this.#files.directory, files, sums, sumFiles };
    return this.#blocks;
  }

  #reserveSums({ index, length }: RamBlock): number {
    const bytes = (length / TARGET_PAGE_SIZE) * SUM_BYTES;
    const fd = this.#files.create(sumsFile(index), bytes);
    this.#files.reserve(fd, sumsFile(index), 0, bytes, bytes);
    return fd;
  }

  /**
   * A range will come in postcopy. What holds data has its room already; the rest, from the first
   * page without to the last, is reserved in one go.
   */
  reserve(block: RamBlock, start: number, length: number): void {
    const { files, sums } = this.#store();
    const of = sumsOf(sums, block);
    const end = (start + length) / TARGET_PAGE_SIZE;
    let [first, last, holes] = [end, end, 0];
    for (let page = start / TARGET_PAGE_SIZE; page < end; page++) {
      if (of[page] !== ZERO_PAGE_SUM) continue;
      if (holes++ === 0) first = page;
      last = page;
    }
    if (holes === 0) return;
    const offset = first * TARGET_PAGE_SIZE;
    const bytes = (last + 1) * TARGET_PAGE_SIZE - offset;
    const needed = holes * TARGET_PAGE_SIZE;
    this.#files.reserve(files[block.index] ?? -1, ramFile(block.index), offset, bytes, needed);
  }

  /**
   * The guest is about to be taken over: says durably what another process needs to take the rest,
   * if this one cannot (arrival.ts).
   */
  takeOver({ received }: PageState, facts: StreamFacts): void {
    const { sums } = this.#store();
    for (const block of this.#blocks) {
      const slots = sumsOf(sums, block).slice();
      received[block.index]?.forEachClearRange((first, end) => {
        slots.fill(PAGE_TO_COME, first, end);
      });
      this.#files.write(sumsFile(block.index), new Uint8Array(slots.buffer));
    }
    const arrival: Arrival = {
      format: ARRIVAL_FORMAT,
      version: SNAPSHOT_VERSION,
      program: `${PROGRAM} ${VERSION}`,
      bootId: bootId(),
      machineType: this.#machineType,
      uuid: this.#uuid,
      ...facts,
      blocks: this.#blocks.map(({ name, length, pageSize }) => ({ name, length, pageSize })),
      package: this.#keepPackage(),
    };
    this.#files.write(ARRIVAL_DRAFT, jsonBytes(arrival));
    this.#files.publish(ARRIVAL_DRAFT, ARRIVAL_FILE);
  }

  /** Goes on where another process was when it ended: reads what is here, page by page. */
  resume(): ArrivedPart {
    const { directory } = this.#files;
    if (this.#takenOver === undefined) throw new Error("there is no guest to resume");
    const { arrival, package: bytes } = this.#takenOver;
    this.#package = bytes;
    this.#packageFile = arrival.package;
    this.#machineType = arrival.machineType;
    this.#uuid = arrival.uuid;
    this.#blocks = arrival.blocks.map((block, index) => ({ ...block, index, address: 0 }));
    const arrived = this.#blocks.map((block) => readArrivedPages(this.#files, block));
    const [files, sumFiles, sums] = [
      arrived.map(({ file }) => file),
      arrived.map(({ sumFile }) => sumFile),
      arrived.map((pages) => pages.sums),
    ];
    this.#data = { directory, files, sums, sumFiles };
    const { ramSectionId, sourceIsOurs, identity } = arrival;
    const received = arrived.map((pages) => pages.received.shared);
    return {
      ...{ blocks: this.#blocks, pages: { received }, ramSectionId },
      ...{ sourceIsOurs, identity },
      sameBoot: arrival.bootId === bootId(),
    };
  }

  storeSink(pages: PageState, buffer: ReceiveBuffer): PrecopyStoreSink {
    return new PrecopyStoreSink(this.#store(), pages, buffer);
  }

  sinkData(): StoreData {
    return this.#store();
  }

  #store(): StoreData {
    if (this.#data === undefined) throw new Error("the RAM blocks are not known yet");
    return this.#data;
  }

  run(): void {
    // It is kept, not run: whoever restores it runs it.
  }

  /** Makes all files durable, and only then says by the manifest that they are a snapshot. */
  finish(commit: () => void): void {
    const blocks = this.#blocks.map((block) => this.#finishBlock(block));
    const described = this.#vmDescription;
    const manifest: Manifest = {
      format: SNAPSHOT_FORMAT,
      version: SNAPSHOT_VERSION,
      program: `${PROGRAM} ${VERSION}`,
      createdAt: new Date().toISOString(),
      machineType: this.#machineType,
      targetPageSize: TARGET_PAGE_SIZE,
      uuid: this.#uuid,
      blocks,
      package: this.#keepPackage(),
      vmDescription:
        described === undefined ? undefined : this.#writeFile(VM_DESCRIPTION_FILE, described),
    };
    this.#files.write(MANIFEST_DRAFT, jsonBytes(manifest));
    commit();
    this.#files.publish(MANIFEST_DRAFT, MANIFEST_FILE);
    for (const name of [ARRIVAL_FILE, ARRIVAL_DRAFT]) this.#files.remove(name);
    const pagesStored = blocks.reduce((sum, block) => sum + block.pagesStored, 0);
    const { directory } = this.#files;
    this.#kept({ directory, pagesStored, deviceBytes: manifest.package.bytes });
  }

  /** Makes the device state durable, unless it is. */
  #keepPackage(): ManifestFile {
    if (this.#package === undefined) throw new Error("there is no device state");
    this.#packageFile ??= this.#writeFile(PACKAGE_FILE, this.#package);
    return this.#packageFile;
  }

  #writeFile(file: string, bytes: Uint8Array): ManifestFile {
    this.#files.write(file, bytes);
    return { file, bytes: bytes.length, sha256: sha256(bytes) };
  }

  #finishBlock(block: RamBlock): ManifestBlock {
    const { files, sums, sumFiles } = this.#store();
    // Copied out: a file cannot be written from shared memory.
    const of = sumsOf(sums, block).slice();
    const fd = files[block.index] ?? -1;
    this.#files.sync(fd, ramFile(block.index));
    const zeros = punchZeroRuns(fd, of);
    this.#files.close(fd, ramFile(block.index));
    const bytes = new Uint8Array(of.buffer);
    this.#files.write(sumsFile(block.index), bytes);
    this.#files.close(sumFiles[block.index] ?? -1, sumsFile(block.index));
    return {
      name: block.name,
      length: block.length,
      pageSize: block.pageSize,
      file: ramFile(block.index),
      sums: sumsFile(block.index),
      sumsSha256: sha256(bytes),
      pagesStored: of.length - zeros,
    };
  }
}

/**
 * Gives the room back that was reserved for pages which then came as zeros, where it is worth it;
 * returns how many pages of zeros there are. A failure costs room, not contents.
 */
function punchZeroRuns(fd: number, sums: Uint32Array): number {
  let zeros = 0;
  forEachZeroRun(sums, (page, count) => {
    zeros += count;
    if (count < PUNCH_PAGES_MIN) return;
    punchHole(fd, page * TARGET_PAGE_SIZE, count * TARGET_PAGE_SIZE);
  });
  return zeros;
}

function jsonBytes(value: Manifest | Arrival): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}

function sumsOf(sums: readonly SharedArrayBuffer[], block: RamBlock): Uint32Array {
  const shared = sums[block.index];
  if (shared === undefined) throw new Error(`no checksums for block ${block.name}`);
  return new Uint32Array(shared);
}
