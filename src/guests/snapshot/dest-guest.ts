/** A guest that is kept: its pages go to files, its device state stays as it came. */
import type {
  ArrivedPart,
  DestGuest,
  DeviceLoading,
  ReceiveBuffer,
  StreamFacts,
} from "../../dest/guest.ts";
import type { PageState } from "../../dest/shared.ts";
import type { RamBlock } from "../../ram/block.ts";
import { TARGET_PAGE_SIZE } from "../../stream/constants.ts";
import type { StreamConfiguration } from "../../stream/header.ts";
import type { RamSetupBlock } from "../../stream/ram-setup.ts";
import { uuidText } from "../../stream/uuid.ts";
import { bootId } from "../../util/processes.ts";
import { StreamError } from "../../util/errors.ts";
import { PROGRAM, VERSION } from "../../util/version.ts";
import { SnapshotFiles } from "./files.ts";
import { ARRIVAL_FORMAT } from "./arrival.ts";
import type { Arrival, TakenOver } from "./arrival.ts";
import {
  ARRIVAL_FILE,
  manifestBytesMax,
  MANIFEST_FILE,
  PACKAGE_FILE,
  sha256,
  SNAPSHOT_FORMAT,
  SNAPSHOT_VERSION,
  VM_DESCRIPTION_FILE,
} from "./layout.ts";
import type { Manifest, ManifestFile } from "./layout.ts";
import { RamStore } from "./ram-store.ts";
import { PrecopyStoreSink } from "./store-sink.ts";
import type { StoreData } from "./store-sink.ts";

const MANIFEST_DRAFT = `${MANIFEST_FILE}.tmp`;
const ARRIVAL_DRAFT = `${ARRIVAL_FILE}.tmp`;

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
  #store: RamStore | undefined;
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
    const store = RamStore.create(this.#files, this.#blocks);
    for (const draft of [MANIFEST_DRAFT, ARRIVAL_DRAFT]) {
      this.#files.reserveFile(draft, manifestBytesMax(this.#blocks.length));
    }
    this.#store = store;
    return this.#blocks;
  }

  reserve(block: RamBlock, start: number, length: number): void {
    this.#ram.reserve(block, start, length);
  }

  /**
   * The guest is about to be taken over: says durably what another process needs to take the rest,
   * if this one cannot (arrival.ts).
   */
  takeOver(pages: PageState, facts: StreamFacts): void {
    this.#ram.writeArrived(pages);
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
    if (this.#takenOver === undefined) throw new Error("there is no guest to resume");
    const { arrival, package: bytes } = this.#takenOver;
    this.#package = bytes;
    this.#packageFile = arrival.package;
    this.#machineType = arrival.machineType;
    this.#uuid = arrival.uuid;
    this.#blocks = arrival.blocks.map((block, index) => ({ ...block, index, address: 0 }));
    const { store, received } = RamStore.reopen(this.#files, this.#blocks);
    this.#store = store;
    const { ramSectionId, sourceIsOurs, identity } = arrival;
    const pages = { received: received.map(({ shared }) => shared) };
    return {
      ...{ blocks: this.#blocks, pages, ramSectionId, sourceIsOurs, identity },
      sameBoot: arrival.bootId === bootId(),
    };
  }

  storeSink(pages: PageState, buffer: ReceiveBuffer): PrecopyStoreSink {
    return new PrecopyStoreSink(this.#ram.data, pages, buffer);
  }

  sinkData(): StoreData {
    return this.#ram.data;
  }

  get #ram(): RamStore {
    if (this.#store === undefined) throw new Error("the RAM blocks are not known yet");
    return this.#store;
  }

  run(): void {
    // It is kept, not run: whoever restores it runs it.
  }

  /** Makes all files durable, and only then says by the manifest that they are a snapshot. */
  finish(commit: () => void): void {
    const blocks = this.#ram.finish();
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
}

function jsonBytes(value: Manifest | Arrival): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 2)}\n`);
}
