/** The executable, as operators have it: a process of it begins sooner, and so does all that it does. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Need } from "../helpers/need.ts";
import { PROJECT_ROOT } from "../helpers/spawn.ts";

export const EXECUTABLE = join(PROJECT_ROOT, "dist", "postcopy");

export function needExecutable(): Need {
  const missing = existsSync(EXECUTABLE) ? undefined : "run: npm run build";
  return { what: "dist/postcopy", missing };
}
