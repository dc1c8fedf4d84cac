/** Which input a number of a campaign stands for. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import {
  edgesLayout,
  multifdLayout,
  recordsLayout,
  recoveryLayout,
  returnPathLayout,
  streamLayout,
  textLayout,
} from "./layouts.ts";
import type { Layout } from "./layout.ts";
import { mutate } from "./mutate.ts";
import type { Edit, Material } from "./mutate.ts";
import { Random } from "../helpers/random.ts";
import type { Target } from "./target.ts";
import { TARGETS } from "./targets.ts";

/** One case: what is given to which target. */
export interface Case {
  target: Target;
  material: Material;
  edits: Edit[];
}

const LAYOUTS: Record<string, (bytes: Uint8Array) => Layout> = {
  stream: streamLayout,
  broken: streamLayout,
  mapped: streamLayout,
  urgent: recordsLayout,
  push: recordsLayout,
  multifd: multifdLayout,
  recovery: recoveryLayout,
  back: returnPathLayout,
  qmp: textLayout,
};

/** The recordings in a directory, each with its layout. */
export function readMaterials(directory: string): Material[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith(".bin"))
    .sort()
    .map((file) => {
      const name = file.slice(0, -".bin".length);
      const bytes = new Uint8Array(readFileSync(join(directory, file)));
      const layout = (LAYOUTS[name.split(".")[0] ?? ""] ?? edgesLayout)(bytes);
      return { name, bytes, layout };
    });
}

const prepared = new Map<string, Material>();

/** What a target mutates of a recording; made once. */
function preparedFor(target: Target, recording: Material): Material {
  if (target.prepare === undefined) return recording;
  const key = `${target.name} ${recording.name}`;
  const known = prepared.get(key) ?? target.prepare(recording);
  prepared.set(key, known);
  return known;
}

const SHARES = TARGETS.reduce((sum, { share }) => sum + share, 0);

/** The case of a number; the same for the same seed and recordings. */
export function caseOf(seed: number, number: number, recordings: readonly Material[]): Case {
  const random = new Random(seed, number);
  let rest = random.below(SHARES);
  const target = TARGETS.find(({ share }) => (rest -= share) < 0);
  if (target === undefined) throw new Error("the shares do not add up");
  const taken = recordings.filter(({ name }) => target.takes(name));
  if (taken.length === 0) throw new Error(`nothing was recorded for "${target.name}"`);
  const materials = taken.map((each) => () => preparedFor(target, each));
  const material = random.pick(materials)();
  const other = random.pick(materials);
  return { target, material, edits: mutate(random, material, [other()]) };
}
