/**
 * The rules of the house over the whole project, and each rule over a small example that breaks it,
 * so that a rule that has stopped seeing anything is noticed.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { PROJECT_ROOT } from "../helpers/spawn.ts";
import type { ProjectFile } from "../helpers/tidy.ts";
import {
  findDeadFiles,
  findDeadLinks,
  findImportCircles,
  findImportsWithoutExtension,
  findLeftovers,
  findLongFiles,
  findMachinePaths,
  findStrayFfi,
  findTitleProblems,
  findUpwardImports,
  floorsOf,
} from "../helpers/tidy.ts";

/** Where the project's own text is; neither what is installed nor what is built. */
const PLACES = [
  "{src,syscalls,tests,scripts,docs,bench}/**/*.{ts,mjs,sh,md,json}",
  "*.md",
  ".ci/*",
];

function readProject(): ProjectFile[] {
  const paths = PLACES.flatMap((pattern) => [
    ...new Bun.Glob(pattern).scanSync({ cwd: PROJECT_ROOT, dot: true }),
  ]);
  return paths.sort().map((path) => {
    return { path, text: readFileSync(join(PROJECT_ROOT, path), "utf8") };
  });
}

/** One file with the given text. */
function one(path: string, text: string): ProjectFile[] {
  return [{ path, text }];
}

const project = readProject();
const architecture = readFileSync(join(PROJECT_ROOT, "ARCHITECTURE.md"), "utf8");
const floors = floorsOf(architecture);

/** The codecs cover all of docs/wire.md; this part of it, recovery, no role speaks yet. */
const CODECS_AHEAD = ["src/stream/received-bitmap.ts "];

describe("the project", () => {
  test("is seen whole", () => {
    const paths = project.map(({ path }) => path);
    expect(paths).toContain("src/cli.ts");
    expect(paths).toContain("syscalls/raw.ts");
    expect(paths).toContain("ARCHITECTURE.md");
    expect(paths).toContain(".ci/run");
    expect(floors[0]).toBe("syscalls/");
    expect(floors.at(-1)).toBe("src/cli.ts");
  });

  test("imports bun:ffi only in syscalls/", () => {
    expect(findStrayFfi(project)).toEqual([]);
  });
  test("imports only downwards", () => {
    expect(findUpwardImports(project, floors)).toEqual([]);
  });
  test("imports in no circle", () => {
    expect(findImportCircles(project)).toEqual([]);
  });
  test("names extensions in imports", () => {
    expect(findImportsWithoutExtension(project)).toEqual([]);
  });
  test("has no long files", () => {
    expect(findLongFiles(project)).toEqual([]);
  });
  test("has no marks of unfinished work", () => {
    expect(findLeftovers(project)).toEqual([]);
  });
  test("names no directory of one machine", () => {
    expect(findMachinePaths(project)).toEqual([]);
  });
  test("has one title in each document", () => {
    expect(findTitleProblems(project)).toEqual([]);
  });
  test("has no dead link in its documents", () => {
    expect(findDeadLinks(project, (path) => existsSync(join(PROJECT_ROOT, path)))).toEqual([]);
  });
  test("has no file that nothing uses", () => {
    const dead = findDeadFiles(project).filter(
      (line) => !CODECS_AHEAD.some((path) => line.startsWith(path)),
    );
    expect(dead).toEqual([]);
  });
});

describe("each rule sees what it forbids", () => {
  test("bun:ffi elsewhere", () => {
    // Taken apart, as the rule looks at this file too.
    const module = `"bun${":ffi"}"`;
    const text = `import { ptr } from ${module};\n`;
    expect(findStrayFfi(one("src/ram/page.ts", text))).toEqual([
      "src/ram/page.ts imports bun:ffi, which only syscalls/ may",
    ]);
    expect(findStrayFfi(one("tests/a.test.ts", `await import(${module});`))).toHaveLength(1);
    expect(findStrayFfi(one("syscalls/raw.ts", text))).toEqual([]);
  });

  test("floors are read from ARCHITECTURE.md in their order", () => {
    const text =
      "## Floors\n\n    syscalls/   ground\n    src/util/  more\n\n## Next\n    src/no/\n";
    expect(floorsOf(text)).toEqual(["syscalls/", "src/util/"]);
  });

  test("imports that point upwards, sideways or out", () => {
    const list = ["syscalls/", "src/util/", "src/source/", "src/dest/", "src/cli.ts"];
    const problems = (path: string, target: string): string[] =>
      findUpwardImports(one(path, `import type { A } from "${target}";\n`), list);
    expect(problems("src/util/a.ts", "../source/b.ts")).toEqual([
      "src/util/a.ts imports src/source/b.ts, floors above it",
    ]);
    expect(problems("syscalls/a.ts", "../src/util/b.ts")).toHaveLength(1);
    expect(problems("src/source/a.ts", "../dest/b.ts")).toHaveLength(1);
    expect(problems("src/dest/a.ts", "../source/b.ts")).toEqual([
      "src/dest/a.ts imports src/source/b.ts, the other role",
    ]);
    expect(problems("src/dest/a.ts", "../../tests/b.ts")).toEqual([
      "src/dest/a.ts imports tests/b.ts, outside the program",
    ]);
    expect(problems("src/attic/a.ts", "../util/b.ts")).toEqual([
      "src/attic/a.ts is in no room of ARCHITECTURE.md",
    ]);
    expect(problems("src/dest/a.ts", "./b.ts")).toEqual([]);
    expect(problems("src/cli.ts", "./dest/b.ts")).toEqual([]);
  });

  test("imports in a circle", () => {
    const files: ProjectFile[] = [
      { path: "src/a.ts", text: 'import type { B } from "./b.ts";\nimport "./e.ts";\n' },
      { path: "src/b.ts", text: 'export { c } from "./c.ts";\n' },
      { path: "src/c.ts", text: 'const a = await import("./a.ts");\nimport "./d.ts";\n' },
      { path: "src/d.ts", text: 'new Worker(new URL("./d.worker.ts", import.meta.url));\n' },
      { path: "src/d.worker.ts", text: 'import { d } from "./d.ts";\n' },
      { path: "src/e.ts", text: 'import "./d.ts";\n' },
    ];
    expect(findImportCircles(files)).toEqual([
      "src/a.ts imports src/b.ts imports src/c.ts imports src/a.ts",
    ]);
  });

  test("imports without extension", () => {
    expect(findImportsWithoutExtension(one("src/a.ts", 'import "./b";\n'))).toEqual([
      "src/a.ts imports src/b without its extension",
    ]);
    expect(findImportsWithoutExtension(one("src/a.ts", 'import z from "zod";\n'))).toEqual([]);
  });

  test("long files", () => {
    expect(findLongFiles(one("src/a.ts", "x\n".repeat(501)))).toEqual([
      "src/a.ts has 501 lines; 500 are the limit",
    ]);
    expect(findLongFiles(one("src/a.ts", "x\n".repeat(500)))).toEqual([]);
  });

  test("marks of unfinished work", () => {
    expect(findLeftovers(one("docs/a.md", `fine\n${"FIX"}${"ME"}: later\n`))).toEqual([
      `docs/a.md:2 has a ${"FIX"}${"ME"}`,
    ]);
    expect(findLeftovers(one("src/a.ts", `// ${"TO"}${"DO"}\n// AXXXB`))).toHaveLength(1);
  });

  test("directories of one machine", () => {
    const path = ["", "home", "someone", "x"].join("/");
    expect(findMachinePaths(one("src/a.ts", `open("${path}")`))).toEqual([
      `src/a.ts:1 names the path ${["", "home", "someone"].join("/")}`,
    ]);
    expect(findMachinePaths(one("src/a.ts", '"/$bunfs/root/x" "/dev/userfaultfd"'))).toEqual([]);
  });

  test("documents with no title, or two", () => {
    expect(findTitleProblems(one("a.md", "text\n"))).toEqual([
      'a.md has 0 titles ("# …"), not one',
    ]);
    expect(findTitleProblems(one("a.md", "# A\n\n# B\n"))).toHaveLength(1);
    expect(findTitleProblems(one("a.md", "# A\n\n```sh\n# a comment\n```\n"))).toEqual([]);
  });

  test("dead links", () => {
    const text = "# A\n[b](../b.md#part) [c](https://example.org/c) [d](d.md)\n";
    expect(findDeadLinks(one("docs/a.md", text), (path) => path === "b.md")).toEqual([
      "docs/a.md links to d.md, which does not exist",
    ]);
  });

  test("files that nothing uses", () => {
    const files: ProjectFile[] = [
      { path: "src/cli.ts", text: 'const { a } = await import("./a.ts");\n' },
      { path: "src/a.ts", text: 'new Worker(new URL("./a.worker.ts", import.meta.url));\n' },
      { path: "src/a.worker.ts", text: 'import { b } from "../syscalls/b.ts";\n' },
      { path: "syscalls/b.ts", text: "" },
      { path: "src/island.ts", text: 'import "./islet.ts";\n' },
      { path: "src/islet.ts", text: 'import "./island.ts";\n' },
      { path: "tests/a.test.ts", text: 'import "../src/island.ts";\n' },
    ];
    expect(findDeadFiles(files)).toEqual([
      "src/island.ts is not reached from src/cli.ts",
      "src/islet.ts is not reached from src/cli.ts",
    ]);
  });
});
