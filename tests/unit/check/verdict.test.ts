import { describe, expect, test } from "bun:test";
import { UFFD } from "../../../syscalls/abi/userfaultfd.ts";
import type { Facts } from "../../../src/check/facts.ts";
import type { KernelFacts } from "../../../src/check/kernel.ts";
import { canRun, renderOutcomes, renderRoles, runProbes } from "../../../src/check/verdict.ts";
import { createPaint } from "../../../src/util/terminal.ts";

const plain = createPaint(false);
const CAP_SYS_PTRACE = 19;

const kernel: KernelFacts = {
  userfault: { "system call": null, "/dev/userfaultfd": null, "user mode only": null },
  features: 0x1ffff,
  pagemapScan: null,
  memoryLock: null,
  processDescriptor: null,
};

/** A host that has everything. */
const host: Facts = {
  platform: "linux",
  architecture: "x64",
  kernelRelease: "6.18.44-generic",
  pageSize: 4096,
  cores: 8,
  user: { id: 0, name: "root" },
  hasCapability: () => true,
  seccomp: false,
  kernel,
  unprivilegedUserfault: 1,
  hugePools: [{ pageSize: 2 ** 21, total: 512, free: 500 }],
  memlockBytes: Infinity,
  niceLimit: 0,
  realTimeLimit: 0,
  kvm: "ok",
  qemu: { path: "/usr/bin/qemu-system-x86_64", version: "7.2.22" },
  executable: "/usr/local/bin/postcopy",
};

/** An ordinary user of an ordinary distribution. */
const user: Partial<Facts> = {
  user: { id: 1000, name: "ada" },
  hasCapability: () => false,
  unprivilegedUserfault: 0,
  kernel: {
    ...kernel,
    userfault: {
      "system call": "EPERM",
      "/dev/userfaultfd": "EACCES",
      "user mode only": null,
    },
  },
};

/** A container whose filter forbids the system call, run by root. */
const container: Partial<Facts> = {
  seccomp: true,
  kernel: {
    features: 0,
    pagemapScan: "it needs a userfaultfd",
    memoryLock: null,
    processDescriptor: null,
    userfault: {
      "system call": "EPERM",
      "/dev/userfaultfd": "ENOENT",
      "user mode only": "EPERM",
    },
  },
};

function probe(name: string, changes: Partial<Facts>) {
  const [outcome] = runProbes({ ...host, ...changes }, name);
  if (outcome === undefined) throw new Error(`there is no probe ${name}`);
  return outcome;
}

function roles(changes: Partial<Facts>) {
  const outcomes = runProbes({ ...host, ...changes });
  return { source: canRun("source", outcomes), dest: canRun("dest", outcomes) };
}

test("a host that has everything passes every probe", () => {
  const outcomes = runProbes(host);
  expect(outcomes.filter(({ state }) => state !== "ok")).toEqual([]);
  expect(outcomes.some(({ fix }) => fix !== undefined)).toBeFalse();
  expect(roles({})).toEqual({ source: true, dest: true });
});

describe("userfaultfd", () => {
  test("is limited for an ordinary user, who is told all three ways", () => {
    expect(probe("userfaultfd", user)).toMatchObject({
      state: "limited",
      fix: "sudo sysctl -w vm.unprivileged_userfaultfd=1",
    });
    expect(probe("privilege", user).fix).toBe(
      "sudo setcap cap_sys_ptrace=ep /usr/local/bin/postcopy",
    );
    expect(probe("sysctl", user).fix).toBe("sudo sysctl -w vm.unprivileged_userfaultfd=1");
    expect(probe("device", user).fix).toBe("sudo chown ada /dev/userfaultfd");
    expect(roles(user)).toEqual({ source: true, dest: true });
  });

  test("is there by the device alone", () => {
    const userfault = { ...kernel.userfault, "system call": "EPERM" };
    expect(probe("userfaultfd", { kernel: { ...kernel, userfault } })).toMatchObject({
      state: "ok",
      detail: "by /dev/userfaultfd",
    });
  });

  test("behind a container's filter is missing even for root, and the filter is blamed", () => {
    expect(probe("userfaultfd", container)).toMatchObject({
      state: "missing",
      detail: "refused (EPERM)",
      fix: expect.stringContaining("seccomp=unconfined"),
    });
    expect(probe("privilege", container).detail).toContain("seccomp");
    expect(probe("event-remove", container).fix).toBe("postcopy check userfaultfd");
    expect(roles(container)).toEqual({ source: true, dest: false });
  });

  test("may not be in the kernel at all", () => {
    const userfault = {
      "system call": "ENOSYS",
      "/dev/userfaultfd": "ENOENT",
      "user mode only": "ENOSYS",
    };
    expect(probe("userfaultfd", { kernel: { ...kernel, userfault } })).toMatchObject({
      state: "missing",
      fix: "boot a kernel with CONFIG_USERFAULTFD",
    });
  });

  test("privilege is the capability, not the name", () => {
    const some = { user: { id: 1000, name: "ada" } };
    const ptrace = { ...some, hasCapability: (bit: number) => bit === CAP_SYS_PTRACE };
    expect(probe("privilege", ptrace)).toMatchObject({ state: "ok", detail: "CAP_SYS_PTRACE" });
    const stripped = { ...host.user, hasCapability: () => false };
    expect(probe("privilege", stripped).state).toBe("missing");
  });
});

test.each<[string, Partial<Facts>, string]>([
  ["kernel", { kernelRelease: "4.10.0" }, "missing"],
  ["kernel", { kernelRelease: "4.11.0" }, "ok"],
  ["kernel", { kernelRelease: "10.0-rc1" }, "ok"],
  ["kernel", { platform: "darwin" }, "missing"],
  ["architecture", { architecture: "riscv64" }, "missing"],
  ["page-size", { pageSize: 65_536 }, "missing"],
  ["page-size", { pageSize: 0 }, "missing"],
  ["event-remove", { kernel: { ...kernel, features: 1 } }, "missing"],
  ["wp-async", { kernel: { ...kernel, features: UFFD.UFFD_FEATURE_WP_ASYNC } }, "ok"],
  ["wp-async", { kernel: { ...kernel, features: 0x7fff } }, "missing"],
  ["pagemap-scan", { kernel: { ...kernel, pagemapScan: "ENOTTY" } }, "missing"],
  ["memlock", { kernel: { ...kernel, memoryLock: "EPERM" } }, "missing"],
  ["pidfd", { kernel: { ...kernel, processDescriptor: "ENOSYS" } }, "missing"],
  ["priority", { hasCapability: () => false, niceLimit: 34 }, "missing"],
  ["priority", { hasCapability: () => false, niceLimit: 35 }, "limited"],
  ["priority", { hasCapability: () => false, realTimeLimit: 1 }, "ok"],
  ["cores", { cores: 1 }, "limited"],
  ["hugepages", { hugePools: [] }, "missing"],
  ["hugepages", { hugePools: [{ pageSize: 2 ** 21, total: 8, free: 0 }] }, "limited"],
  ["hugepages", { hugePools: [{ pageSize: 2 ** 30, total: 1, free: 1 }] }, "limited"],
  ["memlock", { hasCapability: () => false, memlockBytes: 8 * 2 ** 20 }, "limited"],
  ["memlock", { hasCapability: () => false, memlockBytes: 2 ** 33 }, "ok"],
  ["memlock", { memlockBytes: 0 }, "ok"],
  ["kvm", { kvm: "denied" }, "missing"],
  ["kvm", { kvm: "absent" }, "missing"],
  ["qemu", { qemu: null }, "missing"],
  ["qemu", { qemu: { path: "/q", version: "6.2.0" } }, "limited"],
  ["qemu", { qemu: { path: "/q", version: "11.1" } }, "ok"],
  ["sysctl", { unprivilegedUserfault: null }, "limited"],
])("%s of %j is %s", (name, changes, state) => {
  const outcome = probe(name, changes);
  expect(outcome.state).toBe(state as typeof outcome.state);
  if (state === "missing") expect(outcome.fix).toBeString();
});

test("only what is required keeps a role from running", () => {
  expect(roles({ pageSize: 16_384 })).toEqual({ source: false, dest: false });
  expect(roles({ kernel: { ...kernel, features: 1 } })).toEqual({ source: true, dest: false });
  expect(roles({ qemu: null, kvm: "absent", hugePools: [], cores: 1 })).toEqual({
    source: true,
    dest: true,
  });
});

test("the hint for huge pages keeps those that are in use", () => {
  const hugePools = [{ pageSize: 2 ** 21, total: 100, free: 0 }];
  expect(probe("hugepages", { hugePools }).fix).toBe("sudo sysctl -w vm.nr_hugepages=612");
});

test("people read the outcomes by group, each with what would mend it", () => {
  const outcomes = runProbes({ ...host, ...container });
  const text = renderOutcomes(outcomes, plain);
  expect(text.match(/^(Required|Recommended|Optional)$/gm)).toEqual([
    "Required",
    "Recommended",
    "Optional",
  ]);
  expect(text).toMatch(/^ {2}missing {2}userfaultfd +refused \(EPERM\)\n {11}mend: podman run/m);
  expect(renderRoles(outcomes, plain)).toBe(
    "Roles\n  source  can run here (sends a guest)\n  dest    cannot run here (receives one)",
  );
});
