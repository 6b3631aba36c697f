// What a table shows as CSV, Markdown and LaTeX. A sheet is
//
//   {title, header, labels, parts: [{heading, rows: [[{text, bold, rank}]]}], notes}
//
// whose first `labels` columns hold words; a part's heading may be empty.

const formats = (() => {
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const csv = (records) => records.map((record) => `${record.map((value) => quoted(String(value ?? ""))).join(",")}\n`).join("");

  const HTML = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  const inMarkdown = (text) => text.replace(/[&<>]/g, (character) => HTML[character]).replace(/[\\`*_[\]|~$]/g, "\\$&");

  function markdown({ title, header, labels, parts, notes }) {
    const cell = ({ text, bold, rank }) => (bold ? `**${inMarkdown(text)}**` : inMarkdown(text)) + (rank ? ` <sup>${rank}</sup>` : "");
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
    "±": "$\\pm$", "−": "$-$", "–": "--", "†": "$^\\dagger$", "‡": "$^\\ddagger$", "§": "\\S{}",
    "Δ": "$\\Delta$", "×": "$\\times$", "→": "$\\rightarrow$", "·": "$\\cdot$",
  };
  const inLatex = (text) => text.replace(/\p{C}/gu, "").replace(/[&%$#_{}]|[^\p{L}\p{N}\p{M}\s]/gu,
    (character) => LATEX[character] ?? ("&%$#_{}".includes(character) ? `\\${character}` : character));

  function latex({ title, header, labels, parts, notes }) {
    const cell = ({ text, bold, rank }) => (bold ? `\\textbf{${inLatex(text)}}` : inLatex(text)) + (rank ? `$^{${rank}}$` : "");
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
