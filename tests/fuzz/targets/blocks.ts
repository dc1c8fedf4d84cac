/** The RAM blocks that a recording is about: those of the stream that belongs to it. */
import type { RamBlock } from "../../../src/ram/block.ts";
import { ModelError } from "../layout.ts";
import { readModel } from "../model.ts";
import type { ModelBlock } from "../model-memory.ts";
import type { Place } from "../target.ts";

const known = new Map<string, readonly RamBlock[]>();

/** Of "back.7.2.recovery" the blocks of "stream.7.2.precopy"; in files, without addresses. */
export function blocksOf({ material, recordings }: Pick<Place, "material" | "recordings">) {
  const owner = /^[a-z]+\.(own|\d+\.\d+)/.exec(material.name)?.[1] ?? "";
  const name = owner === "own" ? "stream.own" : `stream.${owner}.precopy`;
  const made = known.get(name) ?? read(recordings.find((each) => each.name === name)?.bytes);
  known.set(name, made);
  return made;
}

function read(stream: Uint8Array | undefined): readonly RamBlock[] {
  const blocks: ModelBlock[] = [];
  try {
    readModel(stream ?? new Uint8Array(0), { fields: [], spans: [] }, blocks);
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
  }
  if (blocks.length === 0) throw new Error("no stream belongs to the recording");
  return blocks.map(({ name, length, pageSize }, index) => {
    return { index, name, length, pageSize, address: 0 };
  });
}
