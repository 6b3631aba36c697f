// The page's framework. A section's script is `sections.<name> = (page) => { ... }`: it renders the JSON
// from its Python module into the empty elements of its template. It receives
//
//   page.data               the section's content
//   page.overview           shared by the whole page: `checkpoints`, `precisions` (`table_sections.overview`)
//   page.state              what is in the address, see `state`
//   page.el(tag, props, ...children)      an element; string children become text
//   page.name(text)         a name from a result, isolated from the reading direction around it
//   page.css(variable)      the current value of a custom property, colours resolved
//   page.colour(name)       {colour, dash, symbol} of a checkpoint, the same everywhere on the page
//   page.plain(text)        text that plotly draws literally
//   page.plot(element, traces, layout)    a chart, drawn when scrolled near, see plot.js
//   page.table(element, spec)             a table with search, menus and downloads, see tables.js
//   page.download(filename, type, text)   and page.copy(text), a promise of whether it worked
//
// Text from results is always set as text, never as HTML.

const sections = {};

function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== undefined && value !== null && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

const name = (text) => el("bdi", { class: "name", title: text }, text);

function css(variable) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
  if (!value.startsWith("light-dark(")) return value;
  const probe = document.body.appendChild(el("i", { hidden: true, style: `color: var(${variable})` }));
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

// Characters that reverse the reading direction, and plotly's mark-up, are removed from names.
const DIRECTIONS = /[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]/g;

function plain(text, longest = 40) {
  const characters = [...text.replace(DIRECTIONS, "")];
  const short = characters.length > longest ? [...characters.slice(0, longest - 1), "…"] : characters;
  return short.join("").replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon"];
const COLOURS = 7;  // of style.css: --line-0 ... --line-6

// Names get styles in the order of the page's checkpoints, then in the order of request.
function palette(names) {
  const places = new Map(names.map((text, index) => [text, index]));
  return (text) => {
    if (!places.has(text)) places.set(text, places.size);
    const index = places.get(text);
    return {
      colour: `var(--line-${index % COLOURS})`,
      dash: DASHES[Math.floor(index / COLOURS) % DASHES.length],
      symbol: SYMBOLS[index % SYMBOLS.length],
    };
  };
}

function download(filename, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  el("a", { href: address, download: filename }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {  // not allowed or not supported: use the older API
    const field = document.body.appendChild(el("textarea", { class: "aside", "aria-hidden": "true" }));
    field.value = text;
    field.select();
    const worked = document.execCommand("copy");
    field.remove();
    return worked;
  }
}

// The text of a packed script element (base64 of gzip).
async function unpack(id) {
  const element = document.getElementById(id);
  const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// Light or dark: the system's setting until the reader uses the switch, which is remembered.

{
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const changed = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    document.dispatchEvent(new Event("themechange"));
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("lowbit-theme", root.dataset.theme);
    } catch { /* private windows have no storage */ }
    changed();
  });
  dark.addEventListener("change", changed);
  changed();
}

// The reader's choices, kept in the address so that a link restores them:
//
//   index.html#classification?classification.dataset=digits&checkpoint=a&checkpoint=b
//
// The position on the page comes before the question mark, the choices after it. A key holds a string or
// a list of strings; the keys of a section begin with its name.

const state = (() => {
  const listeners = [];
  let place = "";
  let choices = new URLSearchParams();

  const parse = () => {
    const [anchor, ...query] = location.hash.slice(1).split("?");
    return [decodeURIComponent(anchor), query.join("?")];
  };
  const address = (at = place) => {
    const query = choices.toString();
    return `#${encodeURIComponent(at)}${query ? `?${query}` : ""}`;
  };
  const write = () => history.replaceState(history.state, "", address());
  const tell = (key) => listeners.forEach((listener) => listener(key));
  const go = () => {
    let element = document.getElementById(place);
    for (let part = element; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    element?.scrollIntoView();
  };

  addEventListener("hashchange", () => {
    const [anchor, query] = parse();
    place = anchor;
    if (query) {  // a shared link
      choices = new URLSearchParams(query);
      tell(null);
    } else if (choices.size) {  // a link within the page: the choices stay
      write();
    }
    go();
  });

  const [anchor, query] = parse();
  place = anchor;
  choices = new URLSearchParams(query);

  return {
    get: (key) => choices.get(key) ?? "",
    list: (key) => choices.getAll(key),
    // An empty string or list removes the key.
    set(key, value) {
      choices.delete(key);
      for (const text of [value].flat()) if (text) choices.append(key, text);
      write();
      tell(key);
    },
    // `listener(key)` is called after each change; a null key means that anything may have changed.
    subscribe: (listener) => listeners.push(listener),
    // A link to the current view, at an element of the page.
    link: (id) => location.href.split("#")[0] + address(id),
    go,
  };
})();

// A table as CSV, Markdown and LaTeX. A sheet is
//
//   {title, header, labels, parts: [{heading, rows: [[{text, bold, italic, rank}]]}], notes}
//
// whose first `labels` columns are text; a part's heading may be empty.

const formats = (() => {
  // As benchmark/leaderboard/csv_text.py: what a spreadsheet would compute gets an apostrophe, unless it is a number.
  const COMPUTED = /^'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]./s;
  const NUMBER = /^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$/;
  const defused = (value) => (COMPUTED.test(value) && !NUMBER.test(value) ? `'${value}` : value);
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const csv = (records) => records.map((record) => `${record.map((value) => quoted(defused(String(value ?? "")))).join(",")}\n`).join("");

  const HTML = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  const inMarkdown = (text) => text.replace(/[&<>]/g, (character) => HTML[character]).replace(/[\\`*_[\]|~$]/g, "\\$&");

  function markdown({ title, header, labels, parts, notes }) {
    const marked = (text, bold, italic) => (bold ? `**${text}**` : italic ? `*${text}*` : text);
    const cell = ({ text, bold, italic, rank }) => marked(inMarkdown(text), bold, italic) + (rank ? ` <sup>${rank}</sup>` : "");
    const line = (cells) => `| ${cells.join(" | ")} |`;
    const align = line(header.map((_, index) => (index < labels ? "---" : "---:")));
    const tables = parts.map(({ heading, rows }) => [
      ...(heading ? [`### ${inMarkdown(heading)}`, ""] : []),
      line(header.map(inMarkdown)), align, ...rows.map((row) => line(row.map(cell))),
    ].join("\n"));
    return `${[`## ${inMarkdown(title)}`, ...tables, ...notes.map(inMarkdown)].join("\n\n")}\n`;
  }

  const LATEX = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
    "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}",
    "±": "$\\pm$", "−": "$-$", "–": "--", "†": "$^\\dagger$", "‡": "$^\\ddagger$", "§": "\\S{}", "¶": "\\P{}",
    "Δ": "$\\Delta$", "×": "$\\times$", "→": "$\\rightarrow$", "·": "$\\cdot$",
  };
  const inLatex = (text) => text.replace(/\p{C}/gu, "").replace(/[&%$#_{}]|[^\p{L}\p{N}\p{M}\s]/gu,
    (character) => LATEX[character] ?? ("&%$#_{}".includes(character) ? `\\${character}` : character));

  function latex({ title, header, labels, parts, notes }) {
    const marked = (text, bold, italic) => (bold ? `\\textbf{${text}}` : italic ? `\\textit{${text}}` : text);
    const cell = ({ text, bold, italic, rank }) => marked(inLatex(text), bold, italic) + (rank ? `$^{${rank}}$` : "");
    const row = (cells) => `    ${cells.join(" & ")} \\\\`;
    const body = parts.map(({ heading, rows }) => [
      ...(heading ? [row([`\\multicolumn{${header.length}}{l}{\\emph{${inLatex(heading)}}}`])] : []),
      ...rows.map((cells) => row(cells.map(cell))),
    ].join("\n"));
    return `${[
      "% \\usepackage{booktabs}",
      "\\begin{table}",
      `  \\caption{${inLatex(title)}}`,
      "  \\centering",
      `  \\begin{tabular}{${"l".repeat(labels)}${"r".repeat(header.length - labels)}}`,
      "    \\toprule",
      row(header.map(inLatex)),
      "    \\midrule",
      body.join("\n    \\midrule\n"),
      "    \\bottomrule",
      "  \\end{tabular}",
      ...notes.map((note) => `  \\par\\footnotesize ${inLatex(note)}`),
      "\\end{table}",
    ].join("\n")}\n`;
  }

  return { csv, markdown, latex };
})();

// Unpacks the data, draws the sections, then applies the address. Called last.

async function start() {
  const data = JSON.parse(await unpack("data"));
  const { default: DataTable } = await import(URL.createObjectURL(
    new Blob([await unpack("datatables")], { type: "text/javascript" })));
  const frame = {
    overview: data.overview, state, el, name, css, plain, plot, download, copy,
    colour: palette(data.overview.checkpoints),
  };
  frame.table = (element, spec) => table(DataTable, frame, element, spec);
  masthead(frame);
  for (const [id, content] of Object.entries(data.sections)) sections[id]?.({ ...frame, data: content });
  document.documentElement.dataset.ready = "true";
  state.go();
}
