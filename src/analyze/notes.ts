/** What is unusual about a stream, in sentences: nothing that a number alone would tell people. */
import type { StreamAnalysis } from "../report/analysis.ts";
import { formatCount } from "../util/units.ts";

/** The notes on an analysis, those that matter most first. */
export function notesOf(analysis: StreamAnalysis): string[] {
  return [
    ...missingNotes(analysis),
    ...switchNotes(analysis),
    ...deviceNotes(analysis),
    ...(analysis.stepsOmitted > 0
      ? [`${formatCount(analysis.stepsOmitted)} more commands and sections are not listed`]
      : []),
  ];
}

function missingNotes({
  blocks,
  complete,
  capabilities,
  multifdFlushes,
  discards,
}: StreamAnalysis): string[] {
  const missing = blocks.reduce((sum, { pagesMissing }) => sum + (pagesMissing ?? 0), 0);
  if (missing === 0 || !complete) return [];
  const what = `${formatCount(missing)} pages have no content at the end of this stream`;
  if (capabilities.includes("x-ignore-shared")) {
    return [`${what}: memory that is shared (x-ignore-shared) is left out`];
  }
  if (multifdFlushes > 0) return [`${what}: they travelled on multifd channels`];
  if (discards.commands > 0) {
    return [`${what}: they travelled on another channel (postcopy-preempt), or the guest is torn`];
  }
  return [`${what}: they were never sent, as memory that the guest does not have is not`];
}

function switchNotes({ ending, discards, repeatedAfterSwitch }: StreamAnalysis): string[] {
  const notes: string[] = [];
  if (ending === "postcopy" && discards.commands === 0) {
    notes.push("Nothing is discarded before the switch, which makes a QEMU destination hang");
  }
  if (repeatedAfterSwitch > 0) {
    const count = formatCount(repeatedAfterSwitch);
    notes.push(`${count} pages come twice after the switch, at which a QEMU destination pauses`);
  }
  return notes;
}

function deviceNotes({ devices, complete }: StreamAnalysis): string[] {
  if (devices === null) return [];
  const notes: string[] = [];
  const unproven = devices.sections.filter(({ proven }) => !proven);
  if (unproven.length > 0 && complete) {
    const names = unproven.map(({ name }) => (name === null ? "no header" : `"${name}"`));
    notes.push(`Where the state of ${names.join(", ")} ends cannot be told`);
  }
  if (devices.described === false) {
    notes.push("The description at the end lists other devices than the stream has");
  }
  return notes;
}
