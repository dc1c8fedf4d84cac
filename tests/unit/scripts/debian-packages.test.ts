/** The one thing that the scripts read of the machine: its Debian mirror. */
import { expect, test } from "bun:test";

import { mirrorFrom } from "../../../scripts/debian-packages.ts";

test("the mirror is that of Debian's main archive", () => {
  const targets = [
    "Node bookworm http://packages.example/node/",
    "Debian bookworm-security http://mirror.example/debian-security/",
    "Debian bookworm-updates http://mirror.example/debian/",
    "Debian bookworm http://mirror.example/debian/",
    "",
  ];
  expect(mirrorFrom(targets.join("\n"))).toBe("http://mirror.example/debian/");
  expect(mirrorFrom(targets.slice(0, 2).join("\n"))).toBeUndefined();
  // Before the first `apt-get update` apt knows neither origin nor codename.
  expect(mirrorFrom("$(ORIGIN) $(CODENAME) http://mirror.example/debian/")).toBeUndefined();
});
