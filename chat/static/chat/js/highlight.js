/** Colours a code block. The highlighter and each grammar are fetched when first needed. */
import { soon } from "./slices.js";
import { spans } from "./spans.js";

const VENDOR = "../vendor/highlight.js-11.12.0";
const GRAMMARS = new Set(
  (
    "bash c cpp csharp css diff dockerfile go graphql ini java javascript json kotlin lua makefile " +
    "markdown nginx perl php powershell python r ruby rust scala shell sql swift typescript xml yaml"
  ).split(" "),
);
const ALIASES = {
  "c#": "csharp",
  "c++": "cpp",
  cs: "csharp",
  console: "shell",
  docker: "dockerfile",
  golang: "go",
  html: "xml",
  js: "javascript",
  jsx: "javascript",
  kt: "kotlin",
  make: "makefile",
  md: "markdown",
  patch: "diff",
  ps1: "powershell",
  py: "python",
  rb: "ruby",
  rs: "rust",
  sh: "bash",
  svg: "xml",
  toml: "ini",
  ts: "typescript",
  tsx: "typescript",
  yml: "yaml",
  zsh: "bash",
};
/** A longer block stays plain: colouring it would stop the page. */
const LONGEST = 50_000;

const loading = new Map();

export async function highlight(code) {
  const named = code.className.replace("language-", "").toLowerCase();
  const language = ALIASES[named] ?? named;
  const text = code.textContent;
  if (!GRAMMARS.has(language) || text.length > LONGEST) return;
  const engine = await engineFor(language);
  soon(() => code.replaceChildren(spans(engine.highlight(text, { language }).value)));
}

async function engineFor(language) {
  if (!loading.has(language)) loading.set(language, load(language));
  return loading.get(language);
}

async function load(language) {
  const [core, grammar] = await Promise.all([
    import(`${VENDOR}/core.min.js`),
    import(`${VENDOR}/languages/${language}.min.js`),
  ]);
  core.default.registerLanguage(language, grammar.default);
  return core.default;
}
