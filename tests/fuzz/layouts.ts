/** The layouts of everything but main streams (model.ts): enough for mutations to aim at. */
import { Cursor, ModelError } from "./layout.ts";
import type { Layout } from "./layout.ts";
import { readModel } from "./model.ts";

const PACKET_BYTES = 64 + 256 + 1024;
const HELLO_BYTES = 64;

function layoutOf(bytes: Uint8Array, read: (cursor: Cursor) => void): Layout {
  const cursor = new Cursor(bytes);
  try {
    read(cursor);
  } catch (error) {
    // It breaks off: what is before has been noted.
    if (!(error instanceof ModelError)) throw error;
  }
  return cursor.layout;
}

/** A main stream. */
export function streamLayout(bytes: Uint8Array): Layout {
  const layout: Layout = { fields: [], spans: [] };
  try {
    readModel(bytes, layout);
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
  }
  return layout;
}

/** RAM records, as on a preempt channel; behind the eight bytes of ours, where there are such. */
export function recordsLayout(bytes: Uint8Array): Layout {
  return layoutOf(bytes, (cursor) => {
    if (cursor.peek() === 0x50 && cursor.peek(1) === 0x43) {
      cursor.u32("urgent.magic");
      cursor.u32("urgent.token");
    }
    while (cursor.left > 0) cursor.span("record", () => record(cursor));
  });
}

function record(cursor: Cursor): void {
  const head = cursor.take(8, "record.head");
  const low = cursor.bytes.subarray(head + 6, head + 8);
  const flags = (((low[0] ?? 0) << 8) | (low[1] ?? 0)) & 0xfff;
  if ((flags & 0x10) !== 0) return;
  if ((flags & 0x20) === 0) cursor.str8("record.block");
  if ((flags & 0x400) !== 0) {
    const pages = cursor.u32("run.pages");
    if ((flags & 0x100) !== 0) cursor.take(cursor.u32("run.bytes"), "run.frame");
    else if ((flags & 0x02) === 0) cursor.take(pages * 4096, "run.data");
  } else if ((flags & 0x02) !== 0) cursor.u8("record.fill");
  else cursor.take(4096, "page");
}

/** A multifd channel: a hello, then packets. */
export function multifdLayout(bytes: Uint8Array): Layout {
  return layoutOf(bytes, (cursor) => {
    cursor.span("hello", () => {
      cursor.u32("hello.magic");
      cursor.u32("hello.version");
      cursor.take(16, "hello.uuid");
      cursor.u8("hello.channel");
      cursor.take(HELLO_BYTES - 25, "hello.rest");
    });
    while (cursor.left >= PACKET_BYTES) cursor.span("packet", () => packet(cursor));
  });
}

function packet(cursor: Cursor): void {
  for (const name of ["magic", "version", "flags", "allocated"]) cursor.u32(`packet.${name}`);
  const normal = cursor.u32("packet.normal");
  const bytes = cursor.u32("packet.data.bytes");
  cursor.u64("packet.number");
  cursor.u32("packet.zero");
  cursor.take(28, "packet.reserved");
  cursor.take(256, "packet.block");
  for (let i = 0; i < 128; i++) cursor.u64("packet.offset");
  if (normal > 0) cursor.take(bytes, "packet.data");
}

/** A recovery as the source begins it: commands, then pages. */
export function recoveryLayout(bytes: Uint8Array): Layout {
  return layoutOf(bytes, (cursor) => {
    while (cursor.peek() === 8) cursor.span("command", () => command(cursor));
    while (cursor.left > 5) {
      cursor.span("section", () => {
        cursor.u8("section.type");
        cursor.u32("section.id");
        for (let isEnd = false; !isEnd;) {
          const { at } = cursor;
          cursor.span("record", () => record(cursor));
          isEnd = cursor.at - at === 8 && (cursor.bytes[at + 7] ?? 0) === 0x10;
        }
        cursor.u8("footer");
        cursor.u32("footer.id");
      });
    }
  });
}

function command(cursor: Cursor): void {
  cursor.u8("command");
  cursor.u16("command.number");
  const length = cursor.u16("command.length");
  if (length > 1) cursor.u8("command.name.length");
  cursor.take(Math.max(0, length - 1), "command.name");
}

/** Messages of the return path; a received bitmap follows its message. */
export function returnPathLayout(bytes: Uint8Array): Layout {
  return layoutOf(bytes, (cursor) => {
    while (cursor.left > 0) cursor.span("message", () => message(cursor));
  });
}

function message(cursor: Cursor): void {
  const type = cursor.u16("message.type");
  const length = cursor.u16("message.length");
  if (type === 3 || type === 4) {
    cursor.u64("request.start");
    cursor.u32("request.length");
    if (type === 3) cursor.str8("request.block");
  } else if (type === 5) {
    cursor.str8("bitmap.block");
    cursor.take(cursor.u64("bitmap.bytes"), "bitmap");
    cursor.u64("bitmap.end");
  } else cursor.take(length, "message.value");
}

/** Lines of text, and the words and numbers in them. */
export function textLayout(bytes: Uint8Array): Layout {
  const text = Buffer.from(bytes).toString("latin1");
  const fields = [...text.matchAll(/"[^"\n]*"|-?\d+|true|false|null|[{}[\],:]/g)].map((match) => ({
    at: match.index,
    bytes: match[0].length,
    what: /^[{}[\],:]/.test(match[0]) ? "mark" : match[0].startsWith('"') ? "string" : "number",
  }));
  const spans = [...text.matchAll(/[^\n]+\n?/g)].map((match) => ({
    ...{ at: match.index, end: match.index + match[0].length },
    what: "line",
  }));
  return { fields, spans };
}

/** Bytes of fixed fields at the start and at the end, and none in between. */
export function edgesLayout(bytes: Uint8Array, head = 256, tail = 128): Layout {
  const fields: Layout["fields"] = [];
  for (let at = 0; at + 8 <= Math.min(head, bytes.length); at += 4) {
    fields.push({ at, bytes: 4, what: "head.u32" }, { at, bytes: 8, what: "head.u64" });
  }
  for (let at = Math.max(0, bytes.length - tail); at + 8 <= bytes.length; at += 4) {
    fields.push({ at, bytes: 4, what: "tail.u32" }, { at, bytes: 8, what: "tail.u64" });
  }
  return { fields, spans: [] };
}
