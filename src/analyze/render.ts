/**
 * An analysis as people read it: what it is, what is in it, and where it breaks off. Pure: an
 * analysis goes in, text comes out. The JSON has all that is left out here.
 */
import type {
  Analysis,
  AnalysedDevices,
  MemoryAnalysis,
  SnapshotAnalysis,
  StreamAnalysis,
} from "../report/analysis.ts";
import { alignColumns, labelled } from "../report/columns.ts";
import type { Paint } from "../util/terminal.ts";
import { formatBytes, formatCount, formatPageSize } from "../util/units.ts";
import { pagesOf } from "./page-counts.ts";

/** The analysis as lines of text; no newline at the end. */
export function renderAnalysis(analysis: Analysis, paint: Paint): string {
  const notes = analysis.notes.map((note) => labelled("note", paint.yellow(note), paint));
  return [...linesOf(analysis, paint), ...notes].join("\n");
}

function linesOf(analysis: Analysis, paint: Paint): string[] {
  switch (analysis.kind) {
    case "stream":
      return streamLines(analysis, paint);
    case "snapshot":
      return snapshotLines(analysis, paint);
    case "memory":
      return memoryLines(analysis, paint);
  }
}

function streamLines(analysis: StreamAnalysis, paint: Paint): string[] {
  const { devices, libvirt } = analysis;
  return [
    paint.bold(`${analysis.path}: ${titleOf(analysis)}`),
    ...factLines(analysis, paint),
    ...blockLines(analysis, paint),
    ...roundLines(analysis, paint),
    ...stepLines(analysis, paint),
    ...(devices === null ? [] : deviceLines(devices, paint)),
    ...(libvirt === null ? [] : ["", paint.dim("  domain XML"), libvirt.xml.trimEnd()]),
    ...byteLines(analysis, paint),
  ];
}

const ENDINGS = {
  precopy: ", completed in precopy",
  postcopy: ", switched over to postcopy",
} as const;

function titleOf({ libvirt, compression, ending, complete, machineType }: StreamAnalysis): string {
  const packed = compression === null ? "" : ` (${compression})`;
  const what = libvirt === null ? "migration stream" : "libvirt save image";
  const how = ending === null ? "" : ENDINGS[ending];
  const of = machineType === null ? "" : ` of ${machineType}`;
  return `${complete ? "" : "incomplete "}${what}${packed}${of}${how}`;
}

function factLines(analysis: StreamAnalysis, paint: Paint): string[] {
  const { libvirt, capabilities, uuid, advise, returnPath, targetPageSize, discards } = analysis;
  const { multifdFlushes } = analysis;
  const lines: string[] = [];
  const add = (label: string, text: string): void => {
    lines.push(labelled(label, text, paint));
  };
  if (libvirt !== null) {
    const ran = libvirt.wasRunning ? "the guest ran" : "the guest was paused";
    add("libvirt", `format ${libvirt.format}, ${ran}; the stream begins at ${libvirt.streamAt}`);
  }
  if (capabilities.length > 0) add("capabilities", capabilities.join(", "));
  if (uuid !== null) add("uuid", uuid);
  const signs = [
    `target pages of ${formatPageSize(targetPageSize)}`,
    ...(returnPath ? ["return path opened"] : []),
    ...(advise === null ? [] : ["postcopy advised"]),
    ...(multifdFlushes > 0 ? [counted(multifdFlushes, "multifd flush record")] : []),
  ];
  add("stream", signs.join(", "));
  if (discards.commands > 0) {
    const ranges = counted(discards.ranges, "range");
    const commands = counted(discards.commands, "command");
    add("discarded", `${formatBytes(discards.bytes)}: ${ranges} in ${commands}`);
  }
  return lines;
}

/** "1 range", "1,234 ranges". */
function counted(count: number, what: string): string {
  return `${formatCount(count)} ${what}${count === 1 ? "" : "s"}`;
}

/** A table without the columns that are empty in every row. */
function table(head: string[], rows: string[][], left: number, paint: Paint): string[] {
  if (rows.length === 0) return [];
  const kept = head.map((_, column) => rows.some((row) => !["", "0"].includes(row[column] ?? "")));
  const narrow = (row: readonly string[]): string[] => row.filter((_, column) => kept[column]);
  const [first = "", ...others] = alignColumns([head, ...rows].map(narrow), left);
  return ["", paint.dim(first), ...others];
}

const KIND_HEADS = ["normal", "zero", "xbzrle", "compressed"];

function kindCells({ normal, zero, xbzrle, compressed }: StreamAnalysis["records"]): string[] {
  return [normal, zero, xbzrle, compressed].map(formatCount);
}

function blockLines({ blocks }: StreamAnalysis, paint: Paint): string[] {
  const head = ["RAM block", "size", "page", ...KIND_HEADS, "discarded", "missing", "address"];
  const rows = blocks.map((block) => [
    block.name,
    formatBytes(block.bytes),
    formatPageSize(block.pageSize),
    ...kindCells(block.records),
    block.discards.bytes === 0 ? "" : formatBytes(block.discards.bytes),
    formatCount(block.pagesMissing ?? 0),
    block.guestPhysicalAddress === null ? "" : `0x${block.guestPhysicalAddress.toString(16)}`,
  ]);
  return table(head, rows, 1, paint);
}

/** Rounds that are shown; a guest that writes much makes many. */
const ROUNDS_SHOWN = 20;

function roundLines({ rounds }: StreamAnalysis, paint: Paint): string[] {
  const head = ["pages sent", "at byte", "bytes", ...KIND_HEADS];
  const rows = rounds.map((round) => [
    roundName(round),
    formatCount(round.at),
    formatBytes(round.bytes),
    ...kindCells(round.records),
  ]);
  const hidden = rows.length - ROUNDS_SHOWN;
  if (hidden > 0) rows.splice(ROUNDS_SHOWN / 2, hidden, [`… ${hidden} more rounds`]);
  return table(head, rows, 1, paint);
}

function roundName({ phase, round }: StreamAnalysis["rounds"][number]): string {
  if (phase === "precopy") return `precopy round ${round}`;
  return phase === "stopped" ? "guest stopped" : "postcopy";
}

function stepLines({ steps }: StreamAnalysis, paint: Paint): string[] {
  const rows = steps.map(({ at, what, detail, times, inPackage }) => [
    formatCount(at),
    `${inPackage ? "  " : ""}${what}${detail === null ? "" : ` ${detail}`}`,
    times === 1 ? "" : `${formatCount(times)} times`,
  ]);
  if (rows.length === 0) return [];
  const width = Math.max(...rows.map(([at = ""]) => at.length), "at byte".length);
  const line = ([at = "", what = "", times = ""]: string[]): string =>
    `  ${at.padStart(width)}  ${what}${times === "" ? "" : `, ${times}`}`;
  return ["", paint.dim(line(["at byte", "step"])), ...rows.map(line)];
}

function deviceLines(
  { where, bytes, described, sections }: AnalysedDevices,
  paint: Paint,
): string[] {
  const place = where === "package" ? "in the package" : "behind memory";
  const known = described === true ? ", as the description lists them" : "";
  const count = counted(sections.length, "section");
  const title = `device state ${place}: ${formatBytes(bytes)}, ${count}${known}`;
  const rows = sections.map((section) => [
    section.name ?? "(no header)",
    section.instanceId === 0 ? "" : formatCount(section.instanceId),
    String(section.versionId),
    formatCount(section.bytes),
    formatCount(section.at),
    section.proven ? "" : "end not proven",
  ]);
  const head = ["section", "instance", "version", "bytes", "at byte", ""];
  const [, ...lines] = table(head, rows, 1, paint);
  return ["", `  ${title}`, ...lines];
}

function byteLines(analysis: StreamAnalysis, paint: Paint): string[] {
  const { bytes, records, fileBytes } = analysis;
  const parts = [
    `${formatBytes(bytes.ram)} RAM (${formatCount(pagesOf(records))} pages)`,
    ...(bytes.package > 0 ? [`${formatBytes(bytes.package)} package`] : []),
    ...(bytes.devices > 0 ? [`${formatBytes(bytes.devices)} devices`] : []),
    ...(bytes.description > 0 ? [`${formatBytes(bytes.description)} description`] : []),
    ...(bytes.commands > 0 ? [`${formatBytes(bytes.commands)} commands`] : []),
  ];
  const file = fileBytes === null ? "" : `; the file has ${formatBytes(fileBytes)}`;
  const end = analysis.complete ? paint.green("complete") : paint.red("not complete");
  return [
    "",
    labelled("bytes", `${formatBytes(bytes.total)}: ${parts.join(", ")}${file}`, paint),
    labelled("end", `${end}, at byte ${formatCount(analysis.endAt)}`, paint),
  ];
}

function descriptionText(bytes: number): string {
  return `${formatBytes(bytes)}: the guest completed in precopy, and its devices are described`;
}

function snapshotLines(analysis: SnapshotAnalysis, paint: Paint): string[] {
  const { devices, workingSetPages, pagesVerified, uuid, descriptionBytes } = analysis;
  const size = analysis.blocks.reduce((sum, { bytes }) => sum + bytes, 0);
  const rows = analysis.blocks.map((block) => [
    block.name,
    formatBytes(block.bytes),
    formatPageSize(block.pageSize),
    formatCount(block.pagesStored),
    formatCount(block.pagesDamaged ?? 0),
    block.file,
  ]);
  const head = ["RAM block", "size", "page", "stored", "damaged", "file"];
  const checked =
    pagesVerified === null
      ? "the files, and not their pages (--verify)"
      : `the files, and ${formatCount(pagesVerified)} pages by their checksums`;
  const verdict = analysis.complete ? paint.green("in order") : paint.red("damaged");
  return [
    paint.bold(`${analysis.path}: snapshot of ${analysis.machineType || "an unknown machine"}`),
    labelled("made", `${analysis.createdAt} by ${analysis.program}`, paint),
    labelled("memory", `${formatBytes(size)}, ${formatBytes(analysis.diskBytes)} on disk`, paint),
    ...(uuid === null ? [] : [labelled("uuid", uuid, paint)]),
    ...(descriptionBytes === null
      ? []
      : [labelled("description", descriptionText(descriptionBytes), paint)]),
    ...(workingSetPages === null ? [] : [workingSetLine(workingSetPages, paint)]),
    ...table(head, rows, 1, paint),
    ...(devices === null ? [] : deviceLines(devices, paint)),
    "",
    labelled("checked", checked, paint),
    labelled("state", verdict, paint),
    ...analysis.problems.map(({ message }) => labelled("damage", paint.red(message), paint)),
  ];
}

function workingSetLine(pages: number, paint: Paint): string {
  return labelled("working set", `${formatCount(pages)} pages recorded`, paint);
}

function memoryLines(analysis: MemoryAnalysis, paint: Paint): string[] {
  const { bytes, targetPageSize, files, pagesAbsent, workingSetPages } = analysis;
  const rows = files.map(({ path, diskBytes, pagesStored, pagesServed }) => {
    return [path, formatBytes(diskBytes), formatCount(pagesStored), formatCount(pagesServed)];
  });
  const pages = `${formatCount(bytes / targetPageSize)} pages of ${formatPageSize(targetPageSize)}`;
  const absent = `${formatCount(pagesAbsent)} in no file, which are zeros`;
  return [
    paint.bold(`${analysis.path}: memory of a Firecracker microVM`),
    labelled("memory", `${formatBytes(bytes)}: ${pages}, ${absent}`, paint),
    ...(workingSetPages === null ? [] : [workingSetLine(workingSetPages, paint)]),
    ...table(["file", "on disk", "stored", "served"], rows, 1, paint),
  ];
}
