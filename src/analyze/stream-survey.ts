/**
 * A stream summed up while it is walked: constants, a bit a page, and what there is one of. All of
 * it can be asked for at any time, so that a stream that breaks off tells what there was before.
 */
import { ANALYSIS_VERSION } from "../report/analysis.ts";
import type { AnalysedDevices, PageKinds, Problem, StreamAnalysis } from "../report/analysis.ts";
import type { Command } from "../stream/command.ts";
import { DiscardLimit } from "../stream/discard-limit.ts";
import { targetPageSizeOf } from "../stream/header.ts";
import type { StreamConfiguration } from "../stream/header.ts";
import { PACKAGE_DEVICES_START } from "../stream/package.ts";
import type { DeviceSection } from "../stream/section.ts";
import { uuidText } from "../stream/uuid.ts";
import type { StreamVisitor, WalkedBlock, WalkedPage, WalkedSection } from "../stream/walk.ts";
import { formatBytes } from "../util/units.ts";
import { Coverage } from "./coverage.ts";
import { analyseDevices, analysePackage } from "./devices.ts";
import { notesOf } from "./notes.ts";
import { noPages, Rounds } from "./page-counts.ts";
import { pingDetail, Steps } from "./steps.ts";

/** What of an analysis the file says, rather than the stream in it. */
export type StreamFile = Pick<StreamAnalysis, "path" | "fileBytes" | "compression" | "libvirt">;

/** How a walk ended. */
export interface SurveyEnd {
  endAt: number;
  problem: Problem | null;
}

type Discards = StreamAnalysis["discards"];

/** What is counted of one RAM block. */
interface BlockCount {
  block: WalkedBlock;
  records: PageKinds;
  discards: Discards;
}

export class StreamSurvey implements StreamVisitor {
  /** Whether anything was told: bytes that are no stream leave nothing to say. */
  began = false;
  readonly blocks: BlockCount[] = [];
  readonly #startAt: number;
  readonly #progress: (at: number) => void;
  readonly #records = noPages();
  readonly #rounds = new Rounds();
  readonly #steps = new Steps();
  readonly #discards = noDiscards();
  readonly #bytes = { opening: 0, commands: 0, ram: 0, pages: 0, package: 0, devices: 0 };
  #descriptionBytes = 0;
  #configuration: StreamConfiguration | undefined;
  #coverage: Coverage | undefined;
  #discardLimit: DiscardLimit | undefined;
  #inLastSection = false;
  #sectionAt = -1;
  #advise: StreamAnalysis["advise"] = null;
  #returnPath = false;
  #flushes = 0;
  #package: StreamAnalysis["package"] = null;
  readonly #early: StreamAnalysis["earlyDevices"] = [];
  #devices: AnalysedDevices | null = null;
  /** Device state that is split when it is known whether a description follows. */
  #deviceRun: { bytes: Uint8Array; at: number } | undefined;
  #ending: StreamAnalysis["ending"] = null;

  /** The stream begins at the byte `startAt`; `progress` is told the offset now and then. */
  constructor(startAt: number, progress: (at: number) => void) {
    this.#startAt = startAt;
    this.#progress = progress;
  }

  opening(configuration: StreamConfiguration | undefined, endAt: number): void {
    this.began = true;
    this.#configuration = configuration;
    this.#bytes.opening = endAt - this.#startAt;
  }

  command(command: Command, at: number, endAt: number): void {
    this.#bytes.commands += endAt - at;
    this.#steps.command(command, at);
    if (command.kind === "openReturnPath") this.#returnPath = true;
    else if (command.kind === "postcopyAdvise") this.#advise = command.ram ?? null;
    else if (command.kind === "postcopyRamDiscard") this.#discard(command);
    else if (command.kind === "packaged") this.#ending = "postcopy";
  }

  ramStart(blocks: readonly WalkedBlock[]): void {
    for (const block of blocks) {
      this.blocks.push({ block, records: noPages(), discards: noDiscards() });
    }
    this.#discardLimit = new DiscardLimit(blocks.reduce((sum, { length }) => sum + length, 0));
    this.#coverage = new Coverage(blocks, targetPageSizeOf(this.#configuration));
  }

  earlyDevice(section: DeviceSection, at: number, endAt: number): void {
    const { idstr, instanceId, versionId, sectionId } = section;
    const place = { at, bytes: endAt - at, proven: true };
    this.#early.push({ name: idstr, instanceId, versionId, sectionId, ...place });
    this.#bytes.devices += endAt - at;
    this.#steps.add(at, "FULL", `"${idstr}" ahead of memory`);
  }

  sectionBegins(kind: WalkedSection["kind"], at: number): void {
    this.#progress(at);
    this.#inLastSection = kind === "end";
    this.#sectionAt = at;
    this.#steps.add(at, `${kind.toUpperCase()} ram`);
  }

  page(page: WalkedPage): void {
    this.#records[page.kind] += 1;
    const counted = this.blocks[page.block];
    if (counted !== undefined) counted.records[page.kind] += 1;
    this.#bytes.pages += page.dataAt + page.dataLength - page.at;
    this.#rounds.add(page, this.#inLastSection);
    this.#coverage?.page(page);
  }

  flush(): void {
    this.#flushes += 1;
  }

  section({ at, endAt }: WalkedSection): void {
    this.#bytes.ram += endAt - at;
    this.#sectionAt = -1;
    if (this.#inLastSection) this.#ending ??= "precopy";
  }

  package(bytes: Uint8Array, at: number): void {
    this.#package = { at, bytes: bytes.length };
    this.#bytes.package = bytes.length;
    this.#steps.add(at, "POSTCOPY_LISTEN", null, true);
    // A package that is refused here is looked at as far as it goes.
    const state = bytes.subarray(PACKAGE_DEVICES_START);
    this.#devices = analyseDevices(state, at + PACKAGE_DEVICES_START, "package");
    const { devices, pings, runAt } = analysePackage(bytes, at);
    this.#devices = devices;
    this.#addDevices(devices.at, devices.bytes, true);
    for (const ping of pings) this.#steps.add(ping.at, "PING", pingDetail(ping.value), true);
    this.#steps.add(runAt, "POSTCOPY_RUN", null, true);
  }

  devices(bytes: Uint8Array, at: number): void {
    this.#bytes.devices += bytes.length;
    this.#deviceRun = { bytes, at };
    this.#addDevices(at, bytes.length, false);
  }

  eof(at: number): void {
    this.#steps.add(at, "EOF");
  }

  vmDescription(json: string, at: number): void {
    this.#descriptionBytes = 5 + json.length;
    const run = this.#deviceRun;
    if (run !== undefined) {
      this.#devices = analyseDevices(run.bytes, run.at, "stream", json, this.#early);
    }
    this.#steps.add(at, "VMDESCRIPTION", `${json.length} bytes`);
  }

  unfinished(bytes: Uint8Array, at: number): void {
    const inPackage = this.#ending !== "precopy";
    const skip = inPackage ? Math.min(PACKAGE_DEVICES_START, bytes.length) : 0;
    if (inPackage) this.#bytes.package = bytes.length;
    else this.#bytes.devices += bytes.length;
    if (bytes.length === skip) return;
    const where = inPackage ? "package" : "stream";
    this.#devices = analyseDevices(bytes.subarray(skip), at + skip, where);
    this.#addDevices(at + skip, bytes.length - skip, inPackage);
  }

  /** Pages of a block that lie at fixed places, as its bitmap has them. */
  mappedPages(block: number, pages: number): void {
    this.#records.normal += pages;
    const counted = this.blocks[block];
    if (counted !== undefined) counted.records.normal += pages;
  }

  /** What there is to say, now that the walk has ended. */
  result(file: StreamFile, { endAt, problem }: SurveyEnd): StreamAnalysis {
    if (this.#devices === null && this.#deviceRun !== undefined) {
      const { bytes, at } = this.#deviceRun;
      this.#devices = analyseDevices(bytes, at, "stream");
    }
    const { machine = null, capabilities = [], uuid } = this.#configuration ?? {};
    const ram = this.#bytes.ram + (this.#sectionAt < 0 ? 0 : endAt - this.#sectionAt);
    const analysis: StreamAnalysis = {
      ...{ version: ANALYSIS_VERSION, kind: "stream", ...file, machineType: machine },
      targetPageSize: targetPageSizeOf(this.#configuration),
      capabilities: [...capabilities],
      uuid: uuid === undefined ? null : uuidText(uuid),
      ...{ ending: this.#ending, advise: this.#advise, returnPath: this.#returnPath },
      blocks: this.blocks.map((counted, index) => this.#blockOf(counted, index)),
      ...{ records: this.#records, rounds: this.#rounds.list },
      repeatedAfterSwitch: this.#coverage?.repeated ?? 0,
      ...{ multifdFlushes: this.#flushes, discards: this.#discards },
      ...{ package: this.#package, earlyDevices: this.#early, devices: this.#devices },
      bytes: {
        ...{ ...this.#bytes, ram, description: this.#descriptionBytes },
        total: endAt - this.#startAt,
      },
      ...{ steps: this.#steps.list, stepsOmitted: this.#steps.omitted, notes: [] },
      ...{ complete: problem === null, endAt, problem },
    };
    return { ...analysis, notes: notesOf(analysis) };
  }

  #addDevices(at: number, bytes: number, inPackage: boolean): void {
    this.#steps.add(at, "FULL", `devices, ${formatBytes(bytes)}`, inPackage);
  }

  #discard({ block, ranges }: Command & { kind: "postcopyRamDiscard" }): void {
    this.#discardLimit?.take(ranges);
    const index = this.blocks.findIndex((counted) => counted.block.name === block);
    const places = [this.#discards, this.blocks[index]?.discards ?? noDiscards()];
    for (const range of ranges) this.#coverage?.discard(index, range);
    const bytes = ranges.reduce((sum, { length }) => sum + length, 0);
    for (const place of places) {
      place.commands += 1;
      place.ranges += ranges.length;
      place.bytes += bytes;
    }
  }

  #blockOf(
    { block, records, discards }: BlockCount,
    index: number,
  ): StreamAnalysis["blocks"][number] {
    const mapped = block.mappedRam !== undefined;
    return {
      ...{ name: block.name, bytes: block.length, pageSize: block.pageSize },
      guestPhysicalAddress: block.guestPhysicalAddress ?? null,
      records,
      pagesMissing: mapped ? 0 : (this.#coverage?.missing(index) ?? null),
      discards,
    };
  }
}

function noDiscards(): Discards {
  return { commands: 0, ranges: 0, bytes: 0 };
}
