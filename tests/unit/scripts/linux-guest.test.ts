/** Which package has the kernel: the other one only names it. */
import { expect, test } from "bun:test";

import { kernelPackageIn } from "../../../scripts/linux-guest.ts";

test("the kernel's package is the one that the metapackage depends on", () => {
  const depends = ["linux-image-cloud-amd64", "  Depends: linux-image-6.1.0-1-cloud-amd64", ""];
  expect(kernelPackageIn(depends.join("\n"))).toBe("linux-image-6.1.0-1-cloud-amd64");
  expect(() => kernelPackageIn("linux-image-cloud-amd64\n  Depends: kmod\n")).toThrow(/no kernel/);
});
