import { expect, test } from "bun:test";
import fc from "fast-check";
import { pageDocument } from "../../../../src/report/page/document.ts";
import { escapeText, html } from "../../../../src/report/page/markup.ts";

test("what is filled in is text, between tags and in attributes; markup stays markup", () => {
  const name = `<b onclick="x('y')">&`;
  const inner = html`<i>${name}</i>`;
  const escaped = "&lt;b onclick=&quot;x(&#39;y&#39;)&quot;&gt;&amp;";
  expect(inner.text).toBe(`<i>${escaped}</i>`);
  expect(html`<p title="${name}">${[inner, 3, undefined, "<"]}</p>`.text).toBe(
    `<p title="${escaped}"><i>${escaped}</i>3&lt;</p>`,
  );
});

test("no text can end an element, an attribute or a comment, or bring control characters in", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      // oxlint-disable-next-line no-control-regex -- They are what is looked for.
      expect(escapeText(text)).not.toMatch(/[<>"'\u0000-\u0008\u000b-\u001f\u007f-\u009f]/);
    }),
  );
  expect(escapeText("a\u0000b\u001b[31m\u009b\n\t")).toBe("a\ufffdb\ufffd[31m\ufffd\n\t");
});

test("a page loads and runs nothing, and has its title twice", () => {
  const page = pageDocument({
    title: "A <guest>",
    sections: [{ id: "one", title: "One & two", body: html`<p>x</p>` }],
  });
  expect(page).toStartWith("<!doctype html>");
  expect(page).toContain(
    `content="default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;; img-src data:"`,
  );
  expect(page).toContain("<title>A &lt;guest&gt;</title>");
  expect(page).toContain("<h1>A &lt;guest&gt;</h1>");
  expect(page).toContain("One &amp; two</h2>");
  expect(page).not.toMatch(/<script|https?:|src=|@import|url\(/);
});
