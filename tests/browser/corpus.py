"""What a model might say: hostile texts that must do nothing, honest ones that must look right."""

from __future__ import annotations

FAR = "https://attacker.test"
"""Nothing may ever be asked of this host."""

BOOM = "window.__pwned=1"

HOSTILE: tuple[str, ...] = (
    f"<script>{BOOM}</script>",
    f"<img src=x onerror={BOOM}>",
    f"<img src={FAR}/a.png><img srcset='{FAR}/b.png 2x'>",
    f"<svg onload={BOOM}><svg><script>{BOOM}</script></svg>",
    f"<svg><animate onbegin={BOOM} attributeName=x dur=1s></svg>",
    f"<svg><use href='{FAR}/u.svg#x'></use></svg>",
    f"<iframe src='javascript:{BOOM}'></iframe><iframe srcdoc='<script>{BOOM}</script>'>",
    f"<object data='{FAR}/o'></object><embed src='{FAR}/e'><video src='{FAR}/v' autoplay></video>",
    f"<style>@import '{FAR}/s.css'; body {{ background: url({FAR}/bg) }}</style>",
    f"<link rel=stylesheet href={FAR}/l.css><link rel=prefetch href={FAR}/p>",
    f"<link rel=dns-prefetch href=//attacker.test><link rel=preconnect href={FAR}>",
    f"<meta http-equiv=refresh content='0;url={FAR}'><base href='{FAR}/'>",
    f"<form action={FAR}><input name=prompt autofocus onfocus={BOOM}><button>Go</button></form>",
    f"<details open ontoggle={BOOM}><summary>x</summary></details>",
    f"<div style='background:url({FAR}/d)' onmouseover={BOOM} id=prompt name=prompt>x</div>",
    f"<math><mtext><table><mglyph><style><!--</style><img title='--><img src=x onerror={BOOM}>'>",
    f"<noscript><p title='</noscript><img src=x onerror={BOOM}>'>",
    f"<form><math><mtext></form><form><mglyph><style></math><img src onerror={BOOM}>",
    f"<template><script>{BOOM}</script></template><a name=conversation><a id=main>",
    f"<p><svg><style><a id='</style><img src=1 onerror={BOOM}>'>",
    f"<textarea></textarea><script>{BOOM}</script>",
    f"<!--><img src=x onerror={BOOM}>-->",
    f"<![CDATA[><img src=x onerror={BOOM}>]]>",
    f"<x onclick={BOOM} tabindex=1 autofocus onfocus={BOOM}>click</x>",
    f"[run](javascript:{BOOM}) [run](JaVaScRiPt:{BOOM}) [run](vbscript:{BOOM})",
    f"[run](data:text/html;base64,PHNjcmlwdD4) [run](data:text/html,<script>{BOOM}</script>)",
    f"[run](&#106;avascript:{BOOM}) [run](java&Tab;script:{BOOM}) [run](\\javascript:{BOOM})",
    f"[run](<java\tscript:{BOOM}>) [run]( javascript:{BOOM}) [run](\x01javascript:{BOOM})",
    f"[run](javascript&colon;{BOOM}) [run](//attacker.test) [run](/accounts/logout/) [run](#main)",
    f"[run][x]\n\n[x]: javascript:{BOOM}",
    f"see <javascript:{BOOM}> <data:text/html,x> <{FAR}/auto> <file:///etc/passwd>",
    f'[a](https://x.test \'title" onmouseover="{BOOM}\') [b](https://x.test"onclick={BOOM})',
    f"![pixel]({FAR}/pixel.png) ![]({FAR}/empty.png) ![x][pic]\n\n[pic]: {FAR}/ref.png",
    f"![x](https://good.test@attacker.test/p.png) [![in a link]({FAR}/i.png)](https://x.test)",
    f'![x" onerror="{BOOM}]({FAR}/q.png) ![<img src=x onerror={BOOM}>]({FAR}/alt.png)',
    f"# ![h]({FAR}/h.png)\n\n> ![q]({FAR}/q.png)\n\n- ![l]({FAR}/l.png)",
    f"| a |\n|---|\n| ![t]({FAR}/t.png) <img src=x onerror={BOOM}> |\n",
    f"```html\n<script>{BOOM}</script>\n```\n\n`<img src=x onerror={BOOM}>`",
    f'```"><script>{BOOM}</script>\nx\n```\n\n```js onload={BOOM} class=x\nx\n```',
    f"``` \"'><img src=x onerror={BOOM}>\nx\n```",
    f"    <script>{BOOM}</script>\n",
    f"1. x\n\n   ```xml\n   <svg onload={BOOM}>\n   ```\n   <svg onload={BOOM}>",
    f"**<b onclick={BOOM}>x</b>** _<i>y_ ~~<s>z~~ \\<img src=x onerror={BOOM}>",
    f"&lt;img src=x onerror={BOOM}&gt; &#60;script&#62;{BOOM}&#60;/script&#62;",
    f"<a href='javascript:{BOOM}'>a</a> <a href={FAR} ping={FAR}>b</a>",
    "a\x00b\ud7ff￾\u202eevil\u202c",
)
"""Every way in that we know of: HTML, links, pictures, entities, mutation, nesting."""

HONEST: tuple[str, ...] = (
    "Plain words.",
    "Two\nlines and  \na hard break, \\\nand another.",
    "# One\n\n## Two\n\nText\n\n###### Six\n\nSetext\n======\n\nSecond\n---",
    "**bold** *italic* ***both*** ~~gone~~ `code` ~not~ 2 * 3 * 4",
    "- a\n- b\n  - c\n    - d\n- e\n\nafter",
    "- a\n\n- b\n\n  more of b\n\n- c",
    "1. one\n2. two\n\n   ```python\n   def f(x: int) -> str:\n       return x\n   ```\n\n3. three",
    "1. a\n\n2. b\n\n3. c",
    "7. seven\n8. eight",
    "- [x] done\n- [ ] to do\n",
    "* a\n* b\n\n**bold after a list**\n\n* c",
    "para\n***bold and italic*** goes on",
    "para\n#5 is no heading",
    "para\n- a list may interrupt it",
    "> quoted\ngoes on lazily\n\n> another\n>\n> > nested",
    "| Left | Right | Middle |\n|:---|---:|:---:|\n| a | b | c |\n| `d` | **e** | f |\n\nafter",
    "```js\nconst a = 1 < 2 && 3;\n```\n\nbetween\n\n```\nplain\n\n\nblank lines\n```",
    "```\nnever closed\nand on",
    "~~~ruby\nputs 'x'\n~~~\n",
    "    indented\n    code\n\nafter",
    "[link](https://example.test/a?b=1&c=2 'title') <https://example.test> <who@example.test>",
    "See [one][1] and [two].\n\nText.\n\n[1]: https://example.test/1\n[two]: https://example.test/2",
    "bare https://example.test stays text, so does www.example.test and who@example.test",
    "![a cat](https://pictures.test/cat.png) and ![](relative.png)",
    "a\n\n---\n\nb\n\n***\n\nc",
    "Umlaute äöü, 漢字, emoji 👩‍👩‍👧 and e\u0301",
    "less < more > & \"quotes\" 'single' &amp; &copy; &#35;",
    "&notit; &x; &frac12;&fjlig;&semi;&NotEqualTilde; &#128512; &#x1F600; &#0; &#xD800; "
    "\\&amp; &amp;lt;",
    "`&amp;` <https://example.test/?a&amp;b> [a&amp;b](https://example.test/?a=1&amp;b=2)",
    "![a &amp; *b* `&lt;` \\* c](https://pictures.test/c.png)",
    "carriage\r\nreturns\r\n\r\n- a\r\n- b\r\n",
    "ends with spaces   \n\n\n",
    "\n\n\nbegins with blank lines",
    "<b>raw</b> and <br> are text\n\n<div>\n**bold** in a div\n</div>",
)
"""What answers are made of; server and browser must show the same."""

LONG: tuple[str, ...] = (
    "See [the end].\n\n" + "\n\n".join(HONEST[:16] * 6) + "\n\n[the end]: https://example.test/end",
    "```\n" + "a line of code that goes on\n" * 400,
    "- " + "an item\n- " * 900,
)
"""More than the script draws at once: blocks of many kinds with a late link, and one block."""
