/**
 * A page in one file: everything that it shows is in it, and it may load and run nothing
 * (Content-Security-Policy), whoever wrote the names that stand in it.
 */
import { html, Markup } from "./markup.ts";
import type { Content } from "./markup.ts";
import { STYLE } from "./style.ts";

export interface Section {
  /** For links to it; unique in the page. */
  id: string;
  title: string;
  body: Content;
}

export interface Page {
  title: string;
  /** One line below the title. */
  subtitle?: Content;
  /** Stands before the first section. */
  lead?: Content;
  sections: readonly Section[];
  /** Small print at the end. */
  footer?: Content;
}

const POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/** The text of the file. */
export function pageDocument({ title, subtitle, lead, sections, footer }: Page): string {
  const parts = sections.map((section) => {
    return html`<section aria-labelledby="${section.id}">
      <h2 id="${section.id}">${section.title}</h2>
      ${section.body}
    </section> `;
  });
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta http-equiv="Content-Security-Policy" content="${POLICY}" />
        <meta name="color-scheme" content="light dark" />
        <link rel="icon" href="data:," />
        <title>${title}</title>
        <style>
          ${new Markup(STYLE)}
        </style>
      </head>
      <body>
        <header>
          <h1>${title}</h1>
          ${subtitle === undefined ? undefined : html`<p class="subtitle">${subtitle}</p>`}
        </header>
        <main>${lead}${parts}</main>
        <footer>${footer}</footer>
      </body>
    </html> `.text;
}
