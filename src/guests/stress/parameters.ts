/**
 * What a stress guest is made of, its defaults and its limits. Threads and the device state use
 * this file; the words of the command line are parsed in guest-word.ts, so that no worker has to
 * load a parser.
 */

/** The guest counts, writes and checks pages of this size, whatever the host page size is. */
export const STRESS_PAGE_BYTES = 4096;
export const STRESS_PAGE_WORDS = STRESS_PAGE_BYTES / 4;

/** Host page sizes that the guest's memory can have. */
export const PAGE_SIZE_SMALL = 4096;
export const PAGE_SIZE_HUGE = 2 * 1024 * 1024;

/** A version word is 4 bytes a page: the largest guest has a table of 1 GiB. */
export const SIZE_BYTES_MAX = 2 ** 40;
export const WORKERS_MAX = 64;
export const BLOCKS_MAX = 64;
export const RATE_BYTES_MAX = 2 ** 40;
export const SEED_MAX = 0xffff_ffff;
export const DURATION_MS_MAX = 24 * 60 * 60 * 1000;

/** One guest's parameters: plain data, posted to threads and carried in the device state. */
export interface StressParameters {
  /** Bytes of RAM, all blocks together; a multiple of pageSize. */
  size: number;
  /** Threads that write. Worker w owns the pages p with p % workers == w. */
  workers: number;
  /** RAM blocks that the size is split into. */
  blocks: number;
  /** Bytes of a host page: PAGE_SIZE_SMALL or PAGE_SIZE_HUGE. */
  pageSize: number;
  /** Bytes dirtied a second by all workers together; 0 = as fast as they can. */
  rate: number;
  /** Share of a worker's pages that are hot, 0 to 1. */
  hotFraction: number;
  /** Share of the operations that go to a hot page, 0 to 1. */
  hotShare: number;
  /** Share of a worker's pages that are never written and must read as zeros, 0 to 1. */
  zeroFraction: number;
  /** Share of the operations that discard the page instead of writing it, 0 to 1. */
  discardRate: number;
  /** Of all pseudo-random choices and of the page contents; an integer of 32 bits. */
  seed: number;
  /** How long the destination runs the guest on after all pages have arrived, in milliseconds. */
  durationMs: number;
}

export const STRESS_DEFAULTS: Readonly<StressParameters> = {
  size: 2 ** 30,
  workers: 2,
  blocks: 1,
  pageSize: PAGE_SIZE_SMALL,
  rate: 200 * 1024 * 1024,
  hotFraction: 0.1,
  hotShare: 0.9,
  zeroFraction: 0.25,
  discardRate: 0.001,
  seed: 1,
  durationMs: 2000,
};

/** What is wrong with one parameter: the parameter, what is wrong, and what would be right. */
export interface ParameterProblem {
  parameter: keyof StressParameters;
  message: string;
  hint: string;
}

/** Name and length in bytes of one RAM block of the guest. */
export interface StressBlock {
  name: string;
  length: number;
}

/** Stress pages of the whole guest: global page numbers are 0 to this. */
export function pageCount(parameters: StressParameters): number {
  return parameters.size / STRESS_PAGE_BYTES;
}

/**
 * The RAM blocks of a guest, in the order of the global page numbers: the host pages are dealt out
 * evenly, and the first blocks take one more where they do not come out even.
 */
export function blockLayout(parameters: StressParameters): StressBlock[] {
  const { size, blocks, pageSize } = parameters;
  const hostPages = size / pageSize;
  const each = Math.floor(hostPages / blocks);
  const larger = hostPages % blocks;
  return Array.from({ length: blocks }, (_, index) => ({
    name: blocks === 1 ? "stress.ram" : `stress.ram${index}`,
    length: (index < larger ? each + 1 : each) * pageSize,
  }));
}

/** The first problem of a set of parameters, or undefined when a guest can be made of them. */
export function parameterProblem(parameters: StressParameters): ParameterProblem | undefined {
  return boundsProblem(parameters) ?? fractionProblem(parameters) ?? shapeProblem(parameters);
}

function boundsProblem(parameters: StressParameters): ParameterProblem | undefined {
  const bounds: [keyof StressParameters, number, number][] = [
    ["size", STRESS_PAGE_BYTES, SIZE_BYTES_MAX],
    ["workers", 1, WORKERS_MAX],
    ["blocks", 1, BLOCKS_MAX],
    ["rate", 0, RATE_BYTES_MAX],
    ["seed", 0, SEED_MAX],
    ["durationMs", 0, DURATION_MS_MAX],
  ];
  for (const [parameter, least, most] of bounds) {
    const value = parameters[parameter];
    if (Number.isInteger(value) && value >= least && value <= most) continue;
    return {
      parameter,
      message: `is ${value}, not a whole number from ${least} to ${most}`,
      hint: `the default is ${STRESS_DEFAULTS[parameter]}`,
    };
  }
  return undefined;
}

function fractionProblem(parameters: StressParameters): ParameterProblem | undefined {
  const fractions = ["hotFraction", "hotShare", "zeroFraction", "discardRate"] as const;
  for (const parameter of fractions) {
    const value = parameters[parameter];
    if (value >= 0 && value <= 1) continue;
    return {
      parameter,
      message: `is ${value}, not a share from 0 to 1`,
      hint: `the default is ${STRESS_DEFAULTS[parameter]}`,
    };
  }
  return undefined;
}

/** Parameters that are right one by one but do not fit each other. */
function shapeProblem(parameters: StressParameters): ParameterProblem | undefined {
  const { size, workers, blocks, pageSize, hotFraction, zeroFraction } = parameters;
  if (pageSize !== PAGE_SIZE_SMALL && pageSize !== PAGE_SIZE_HUGE) {
    return {
      parameter: "pageSize",
      message: `is ${pageSize} bytes`,
      hint: "a host page of the guest is 4 KiB or 2 MiB",
    };
  }
  if (size % pageSize !== 0 || size / pageSize < blocks) {
    return {
      parameter: "size",
      message: `of ${size} bytes cannot be cut into ${blocks} blocks of pages of ${pageSize} bytes`,
      hint: "take a multiple of the page size, at least one page a block",
    };
  }
  if (pageCount(parameters) < workers) {
    return {
      parameter: "workers",
      message: `are ${workers} for ${pageCount(parameters)} pages`,
      hint: "take at most one worker a page",
    };
  }
  if (hotFraction + zeroFraction > 1) {
    return {
      parameter: "hotFraction",
      message: `of ${hotFraction} overlaps a zero fraction of ${zeroFraction}`,
      hint: "a page is hot or never written: take two shares that add up to at most 1",
    };
  }
  if (pageSize === PAGE_SIZE_HUGE && parameters.discardRate > 0) {
    return {
      parameter: "discardRate",
      message: "is not 0 for a guest of 2 MiB pages",
      hint: "a 4 KiB part of a huge page cannot be discarded: take 0",
    };
  }
  return undefined;
}
