/** The program's name and version, from package.json; the bundler puts them into the executable. */
import manifest from "../../package.json" with { type: "json" };

export const PROGRAM = manifest.name;
export const VERSION = manifest.version;
