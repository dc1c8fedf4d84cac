/**
 * The rules of the house that neither compiler nor linter knows, as pure functions from files to
 * problems. `tests/unit/tidy.test.ts` runs them over the project, and each over a bad example.
 */
import { dirname, join, normalize } from "node:path";

/** A file of the project; `path` is relative to its root, with slashes. */
export interface ProjectFile {
  path: string;
  text: string;
}

/** Lines of a file of program code. */
const LINES_LIMIT = 500;

/** The two roles are peers: what both need lies on a floor below them. */
const ROLES = ["src/source/", "src/dest/"] as const;

/** Whether the file is part of the program, as opposed to tests, scripts and documents. */
function isProgram({ path }: ProjectFile): boolean {
  return /^(src|syscalls)\/.*\.ts$/.test(path);
}

/** An import, also of types alone, and a lazy import. */
const IMPORTS = [
  /\bfrom\s+"([^"\n]+)"/g,
  /\bimport\s*\(\s*"([^"\n]+)"/g,
  /^import\s+"([^"\n]+)"/gm,
];
/** The file of a worker. */
const WORKERS = /\bnew\s+URL\(\s*"(\.[^"\n]+)"\s*,\s*import\.meta\.url/g;

/** What a file names as an import, a lazy import, or the file of a worker. */
export function importsOf(file: ProjectFile): string[] {
  return namesOf(file, [...IMPORTS, WORKERS]);
}

function namesOf({ text }: ProjectFile, forms: readonly RegExp[]): string[] {
  return forms.flatMap((form) => [...text.matchAll(form)].map((match) => match[1] ?? ""));
}

/** The project's own files that a file names, as paths from the root. */
function localImportsOf(
  file: ProjectFile,
  forms: readonly RegExp[] = [...IMPORTS, WORKERS],
): string[] {
  return namesOf(file, forms)
    .filter((specifier) => specifier.startsWith("."))
    .map((specifier) => normalize(join(dirname(file.path), specifier)));
}

/** Only syscalls/ may import bun:ffi. */
export function findStrayFfi(files: readonly ProjectFile[]): string[] {
  return files
    .filter((file) => file.path.endsWith(".ts") && !file.path.startsWith("syscalls/"))
    .filter((file) => importsOf(file).includes("bun:ffi"))
    .map(({ path }) => `${path} imports bun:ffi, which only syscalls/ may`);
}

/** The rooms listed under "Floors" in ARCHITECTURE.md, ground floor first. */
export function floorsOf(architecture: string): string[] {
  const section = /^## Floors$([\s\S]*?)^## /m.exec(architecture)?.[1] ?? "";
  return [...section.matchAll(/^ {4}((?:syscalls|src)\/\S*)/gm)].map((match) => match[1] ?? "");
}

function floorOf(path: string, floors: readonly string[]): number {
  return floors.findIndex((room) => (room.endsWith("/") ? path.startsWith(room) : path === room));
}

/** A file imports only from its own room and from the floors below. */
export function findUpwardImports(
  files: readonly ProjectFile[],
  floors: readonly string[],
): string[] {
  const problems: string[] = [];
  for (const file of files.filter(isProgram)) {
    const floor = floorOf(file.path, floors);
    if (floor === -1) {
      problems.push(`${file.path} is in no room of ARCHITECTURE.md`);
      continue;
    }
    for (const target of localImportsOf(file).filter((path) => path.endsWith(".ts"))) {
      const targetFloor = floorOf(target, floors);
      const betweenRoles =
        targetFloor !== floor &&
        ROLES.some((role) => file.path.startsWith(role)) &&
        ROLES.some((role) => target.startsWith(role));
      if (targetFloor === -1) problems.push(`${file.path} imports ${target}, outside the program`);
      else if (targetFloor > floor)
        problems.push(`${file.path} imports ${target}, floors above it`);
      else if (betweenRoles) problems.push(`${file.path} imports ${target}, the other role`);
    }
  }
  return problems;
}

/**
 * Files that import each other, directly or by way of others, also for their types alone: what they share
 * belongs in a file below them. A worker is a program of its own, and may import who starts it.
 */
export function findImportCircles(files: readonly ProjectFile[]): string[] {
  const program = new Map(files.filter(isProgram).map((file) => [file.path, file]));
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (path: string, trail: readonly string[]): void => {
    const at = trail.indexOf(path);
    if (at >= 0) circles.push([...trail.slice(at), path].join(" imports "));
    const file = program.get(path);
    if (at >= 0 || file === undefined || done.has(path)) return;
    for (const target of localImportsOf(file, IMPORTS)) visit(target, [...trail, path]);
    done.add(path);
  };
  for (const path of program.keys()) visit(path, []);
  return circles;
}

/** Relative imports name the file with its extension, as the runtime wants it, or a directory. */
export function findImportsWithoutExtension(files: readonly ProjectFile[]): string[] {
  return files
    .filter(({ path }) => path.endsWith(".ts"))
    .flatMap((file) =>
      localImportsOf(file)
        .filter((target) => !/(\.(ts|json|js|css|html|txt)|\/)$/.test(target))
        .map((target) => `${file.path} imports ${target} without its extension`),
    );
}

/** A longer file holds more than one idea. */
export function findLongFiles(files: readonly ProjectFile[]): string[] {
  return files.filter(isProgram).flatMap(({ path, text }) => {
    const lines = text.split("\n").length - 1;
    return lines > LINES_LIMIT ? [`${path} has ${lines} lines; ${LINES_LIMIT} are the limit`] : [];
  });
}

/** Work that is left belongs in an issue, not in a comment. */
export function findLeftovers(files: readonly ProjectFile[]): string[] {
  const marks = new RegExp(`\\b(${["TO" + "DO", "FIX" + "ME", "XX" + "X"].join("|")})\\b`);
  return findLines(files, marks).map(({ where, found }) => `${where} has a ${found}`);
}

/** Nothing names a directory of the machine that it was written on. */
export function findMachinePaths(files: readonly ProjectFile[]): string[] {
  const homes = ["work", "home", "root", "Users"].join("|");
  const pattern = new RegExp(`(?<![\\w$.:/~-])/(?:${homes})/[\\w.-]+`);
  return findLines(files, pattern).map(({ where, found }) => `${where} names the path ${found}`);
}

function findLines(
  files: readonly ProjectFile[],
  pattern: RegExp,
): { where: string; found: string }[] {
  return files.flatMap(({ path, text }) =>
    text.split("\n").flatMap((line, index) => {
      const found = pattern.exec(line)?.[0];
      return found === undefined ? [] : [{ where: `${path}:${index + 1}`, found }];
    }),
  );
}

/** A document has one title. */
export function findTitleProblems(files: readonly ProjectFile[]): string[] {
  return files
    .filter(({ path }) => path.endsWith(".md"))
    .flatMap(({ path, text }) => {
      const titles = withoutCode(text).match(/^# .+$/gm)?.length ?? 0;
      return titles === 1 ? [] : [`${path} has ${titles} titles ("# …"), not one`];
    });
}

/** A link in a document leads to a file that is there. `exists` answers for a path from the root. */
export function findDeadLinks(
  files: readonly ProjectFile[],
  exists: (path: string) => boolean,
): string[] {
  return files
    .filter(({ path }) => path.endsWith(".md"))
    .flatMap(({ path, text }) =>
      [...withoutCode(text).matchAll(/\]\(([^)\s#]+)(?:#[^)\s]*)?\)/g)]
        .map((match) => match[1] ?? "")
        .filter((target) => !/^[a-z]+:/.test(target))
        .filter((target) => !exists(normalize(join(dirname(path), target))))
        .map((target) => `${path} links to ${target}, which does not exist`),
    );
}

/** A Markdown text without its fenced blocks, in which "# " begins a comment. */
function withoutCode(text: string): string {
  return text.replace(/^(```|~~~)[\s\S]*?^\1/gm, "");
}

/**
 * Every file of the program is reached from src/cli.ts, by imports or as a worker's file. What only
 * a test or a script reaches is not part of the program.
 */
export function findDeadFiles(files: readonly ProjectFile[]): string[] {
  const program = new Map(files.filter(isProgram).map((file) => [file.path, file]));
  const reached = new Set<string>();
  const waiting = ["src/cli.ts"];
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const file = program.get(path);
    if (file === undefined || reached.has(path)) continue;
    reached.add(path);
    waiting.push(...localImportsOf(file));
  }
  return [...program.keys()]
    .filter((path) => !reached.has(path))
    .map((path) => `${path} is not reached from src/cli.ts`);
}
