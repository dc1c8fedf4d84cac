/** The program's name and version, from package.json; the build adds the commit. */
import manifest from "../../package.json" with { type: "json" };

/** "0.1.0+COMMIT", put in by scripts/build.ts; not defined when run from the sources. */
declare const POSTCOPY_VERSION: string | undefined;

export const PROGRAM = manifest.name;
export const VERSION = typeof POSTCOPY_VERSION === "string" ? POSTCOPY_VERSION : manifest.version;
