import { expect, test } from "bun:test";
import { join } from "node:path";
import { schemaFiles } from "../../../scripts/schema.ts";
import { PROJECT_ROOT } from "../../helpers/spawn.ts";

test.each([...schemaFiles()])(
  "docs/%s is what the schemas say (bun scripts/schema.ts)",
  async (name, text) => {
    expect(await Bun.file(join(PROJECT_ROOT, "docs", name)).text()).toBe(text);
  },
);
