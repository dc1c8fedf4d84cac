/**
 * Text of a page, in which whatever is filled in is escaped: names come from operators and peers.
 * What is markup has the type of markup, so that nothing gets past this by mistake.
 */

/** A piece of HTML or SVG. */
export class Markup {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What may be filled in. Undefined is nothing. */
export type Content = Markup | string | number | undefined | readonly Content[];

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/**
 * Text as it stands between tags, and in quoted attributes. Control characters become visible, also
 * those that would turn the direction of the text around them.
 */
export function escapeText(text: string): string {
  return text
    .replace(/[&<>"']/g, (character) => ENTITIES[character] ?? "")
    .replace(/[^\P{Cc}\t\n]|\p{Bidi_Control}/gu, "\ufffd");
}

function textOf(content: Content): string {
  if (content === undefined) return "";
  if (content instanceof Markup) return content.text;
  if (typeof content === "object") return content.map(textOf).join("");
  return escapeText(String(content));
}

/** Markup as a template: html`<p>${text}</p>`. Attributes have to stand in double quotes. */
export function html(parts: TemplateStringsArray, ...contents: readonly Content[]): Markup {
  return new Markup(parts.map((part, index) => part + textOf(contents[index])).join(""));
}
