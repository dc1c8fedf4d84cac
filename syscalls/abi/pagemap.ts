/** linux/fs.h: the PAGEMAP_SCAN ioctl of /proc/PID/pagemap (Linux 6.7). */
import type { AbiTable } from "./table.ts";

export const PAGEMAP = {
  PAGEMAP_SCAN: 0xc0606610,
  PM_SCAN_WP_MATCHING: 1,
  PM_SCAN_CHECK_WPASYNC: 2,
  PAGE_IS_WRITTEN: 2,
} as const;

export const PAGEMAP_STRUCTS = {
  "struct pm_scan_arg": {
    size: 96,
    fields: {
      size: 0,
      flags: 8,
      start: 16,
      end: 24,
      walk_end: 32,
      vec: 40,
      vec_len: 48,
      max_pages: 56,
      category_inverted: 64,
      category_mask: 72,
      category_anyof_mask: 80,
      return_mask: 88,
    },
  },
  "struct page_region": { size: 24, fields: { start: 0, end: 8, categories: 16 } },
} as const;

export const ABI = {
  header: "linux/fs.h",
  constants: PAGEMAP,
  structs: PAGEMAP_STRUCTS,
} satisfies AbiTable;
