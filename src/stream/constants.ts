/**
 * Every number of QEMU's migration protocol that the codecs use, and the limits this program sets
 * where the protocol has none. Written from docs/wire.md; the names are QEMU's without their
 * prefixes (QEMU_VM_SECTION_START, MIG_CMD_PING, MIG_RP_MSG_PONG, RAM_SAVE_FLAG_ZERO and so on).
 */

/** "QEVM", the first four bytes of a stream. */
export const STREAM_MAGIC = 0x5145564d;
/** The first four bytes of a multifd channel (MULTIFD_MAGIC). */
export const MULTIFD_MAGIC = 0x11223344;
/** The one version of the format since 2008; version 2 is refused by QEMU as well. */
export const STREAM_VERSION = 3;

/** Bytes that begin a section of the main stream or of a package. */
export const SECTION = {
  eof: 0x00,
  start: 0x01,
  part: 0x02,
  end: 0x03,
  full: 0x04,
  subsection: 0x05,
  vmDescription: 0x06,
  configuration: 0x07,
  command: 0x08,
  footer: 0x7e,
} as const;

/** The section that carries guest memory: its name, and the one version in use since 2015. */
export const RAM_SECTION = { idstr: "ram", instanceId: 0, versionId: 4 } as const;

/** Commands: a u16 after the byte `SECTION.command`. */
export const COMMAND = {
  openReturnPath: 1,
  ping: 2,
  postcopyAdvise: 3,
  postcopyListen: 4,
  postcopyRun: 5,
  postcopyRamDiscard: 6,
  packaged: 7,
  enableColo: 8,
  postcopyResume: 9,
  recvBitmap: 10,
  switchoverStart: 11,
} as const;

/** Messages of the return path: a u16 that begins each. */
export const RETURN_PATH = {
  shut: 1,
  pong: 2,
  requestPagesId: 3,
  requestPages: 4,
  receivedBitmap: 5,
  resumeAck: 6,
  switchoverAck: 7,
} as const;

/** Flags of a RAM record: the bits of its u64 below the target page size. */
export const RAM_FLAG = {
  zero: 0x002,
  memSize: 0x004,
  page: 0x008,
  endOfSection: 0x010,
  continue: 0x020,
  xbzrle: 0x040,
  hook: 0x080,
  compressPage: 0x100,
  multifdFlush: 0x200,
  /** Ours alone, and only where both ends chose it: a record of many pages (page-run.ts). */
  run: 0x400,
} as const;

/** Most pages of a run with data: 2 MiB, a huge page. */
export const RUN_PAGES_MAX = 512;
/** Most pages of a run that is compressed: 256 KiB, for which there is room beside a receive buffer. */
export const PACKED_RUN_PAGES_MAX = 64;
/** Most pages of a run of zeros: 1 GiB. */
export const ZERO_RUN_PAGES_MAX = 0x4_0000;

/** Bytes of a target page unless the stream says otherwise (x86, and most Arm machines). */
export const TARGET_PAGE_SIZE = 4096;
/** Least and greatest page bits a target may have; below 10 the flags would not fit. */
export const TARGET_PAGE_BITS_MIN = 10;
export const TARGET_PAGE_BITS_MAX = 16;

/** The largest huge page there is on the hosts QEMU runs on: 1 GiB. */
export const HOST_PAGE_SIZE_MAX = 0x4000_0000;

/** Longest name on the wire: a `str8` has one byte of length. */
export const NAME_BYTES_MAX = 0xff;

/** Longest machine type name accepted; real ones have about 20 bytes. */
export const MACHINE_NAME_BYTES_MAX = 256;
/** Most names in `configuration/capabilities`; QEMU has some 25 capabilities, and checks two. */
export const CAPABILITIES_MAX = 64;
/** Bytes of the identity in `configuration/uuid`. */
export const UUID_BYTES = 16;

/** Longest VMDESCRIPTION accepted; a large machine's takes some hundreds of KiB. */
export const VM_DESCRIPTION_BYTES_MAX = 16 * 1024 * 1024;
/** Largest package accepted: device state alone, 13 KiB for a plain PC. */
export const PACKAGE_BYTES_MAX = 256 * 1024 * 1024;
/** Most PINGs accepted at the end of a package; QEMU sends one or two. */
export const PACKAGE_PINGS_MAX = 16;
/** Most ranges in one discard command (MAX_DISCARDS_PER_COMMAND). */
export const DISCARD_RANGES_MAX = 12;
/** Longest payload of a return path message that a QEMU source accepts. */
export const RETURN_PATH_BYTES_MAX = 512;

/** Most RAM blocks in a MEM_SIZE list; a machine full of devices has some tens. */
export const RAM_BLOCKS_MAX = 1024;
/** Most guest memory accepted in one stream: 128 TiB, all that a process can map on x86-64. */
export const RAM_BYTES_MAX = 2 ** 47;

/** The payload of RESUME_ACK (MIGRATION_RESUME_ACK_VALUE). */
export const RESUME_ACK_VALUE = 1;
/** The two halves of the u64 behind a received bitmap (RAMBLOCK_RECV_BITMAP_ENDING). */
export const RECEIVED_BITMAP_END_HIGH = 0x0123_4567;
export const RECEIVED_BITMAP_END_LOW = 0x89ab_cdef;

/** Bytes of the fixed fields of a mapped-ram header, packed: u32, u64, u64, u64. */
export const MAPPED_RAM_HEADER_BYTES = 28;
/** The one version of that header. */
export const MAPPED_RAM_VERSION = 1;
/** What the pages of a block are aligned to in a mapped-ram file. */
export const MAPPED_RAM_PAGES_ALIGNMENT = 0x10_0000;

/** Flags of a multifd packet (MULTIFD_FLAG_*). */
export const MULTIFD_FLAG = {
  sync: 0x01,
  /** Bits that say how the packet's pages are compressed: 0 not at all, else one of these. */
  compression: 0x3e,
  zlib: 0x02,
  zstd: 0x04,
  deviceState: 0x40,
} as const;
/** Version in the first packet of a channel and in all others (MULTIFD_VERSION). */
export const MULTIFD_VERSION = 1;
/** Bytes of the first packet of a channel (MultiFDInit_t). */
export const MULTIFD_HELLO_BYTES = 64;
/** Pages of a packet: 512 KiB of 4 KiB pages; their offsets are always there (MULTIFD_PACKET_SIZE). */
export const MULTIFD_PAGES = 128;
/** Bytes of a packet before its pages (MultiFDPacket_t). */
export const MULTIFD_HEADER_BYTES = 320 + MULTIFD_PAGES * 8;
/** Most bytes that the pages of a packet take: they may not shrink, and then grow a little. */
export const MULTIFD_DATA_BYTES_MAX = 640 * 1024;
/** Most multifd channels taken; QEMU itself allows 255, and has 2 unless told otherwise. */
export const MULTIFD_CHANNELS_MAX = 64;
