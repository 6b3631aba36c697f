// The page's frame. A section's script is `sections.<name> = (page) => { ... }`: it draws the JSON that
// its Python module made into the elements that its template left empty. It gets
//
//   page.data               the section's content
//   page.overview           what the whole page knows: `checkpoints`, `precisions` (see overview.py)
//   page.state              what is in the address, see state.js
//   page.el(tag, props, ...children)      an element; strings among the children become text
//   page.name(text)         a name from a result, isolated from its surroundings' reading direction
//   page.css(variable)      the value a custom property has now, colours resolved
//   page.colour(name)       {colour, dash, symbol} of a checkpoint, the same everywhere on the page
//   page.plain(text)        text that plotly draws as it is
//   page.plot(element, traces, layout)    a chart, drawn when it comes near the screen, see plot.js
//   page.table(element, spec)             a table with search, menus and downloads, see table.js
//   page.download(filename, type, text)   and page.copy(text), a promise of whether it worked
//
// Texts of results are only ever set as text, never as HTML.

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

// Characters that reverse the reading direction, and plotly's own mark-up, are taken out of names.
const DIRECTIONS = /[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]/g;

function plain(text, longest = 40) {
  const characters = [...text.replace(DIRECTIONS, "")];
  const short = characters.length > longest ? [...characters.slice(0, longest - 1), "…"] : characters;
  return short.join("").replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

const DASHES = ["solid", "dash", "dot", "dashdot"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon"];
const COLOURS = 7;  // of style.css: --line-0 ... --line-6

// Names take looks in the order of the page's checkpoints, then in the order they are asked for.
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
  } catch {  // not allowed, or not there: the old way
    const field = document.body.appendChild(el("textarea", { class: "aside", "aria-hidden": "true" }));
    field.value = text;
    field.select();
    const worked = document.execCommand("copy");
    field.remove();
    return worked;
  }
}

// The text of a packed script element: gzip in base64.
async function unpack(id) {
  const element = document.getElementById(id);
  const bytes = Uint8Array.from(atob(element.textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
