// Accuracy: one row a checkpoint, one column a precision; data sets and protocols are groups.

sections.classification = (page) => {
  const { data, el, name } = page;
  const rows = board.unpackCells(data.rows, data.cell);
  const several = (column) => new Set(rows.map((row) => row[column])).size > 1;
  const label = (row) => `${row.dataset}, ${row.protocol}${several("metric") ? `, ${row.metric}` : ""} (group ${row.group})`;
  const head = (row) => {
    const facts = data.groups[row.group];
    const images = facts.images.map((n) => n.toLocaleString("en")).join(" or ");
    return [
      board.groupLink(row.group), el("strong", {}, name(row.dataset)), name(row.protocol),
      el("span", { class: "fact" }, row.metric),
      el("span", { class: "fact wide" }, images ? `${images} test images` : "", ` at ${facts.image_size} px`),
      facts.board_policy === "-" ? null : el("span", { class: "fact wide" }, "policy ", name(row.policy)),
      row.engine === "torch" ? null : el("span", { class: "fact wide" }, "engine ", name(row.engine)),
    ];
  };
  page.table(document.getElementById("classification-place"), {
    name: "classification",
    title: "Classification accuracy (%)",
    caption: "Classification accuracy by checkpoint, one column a precision, in groups of one data set and protocol",
    rows,
    columns: [
      ...board.subject(page, rows),
      ...data.columns.map((precision, index) => board.numbers(precision, index, data.groups)),
      board.seeds,
      ...(several("source") ? [board.source] : []),
    ],
    facets: [
      { name: "dataset", label: "Data set" }, { name: "protocol", label: "Protocol" },
      { name: "metric", label: "Metric" }, { name: "method", label: "Method" },
      { name: "architecture", label: "Architecture" }, { name: "training", label: "Training" },
      { name: "policy", label: "Policy" }, { name: "engine", label: "Engine" }, { name: "source", label: "Source" },
    ],
    group: { of: (row) => `${row.group} ${row.metric}`, label, head },
    ...board.choices(page),
    notes: ["Mean over seeds ± standard deviation; † a single seed. Raised: the rank in its group. Bold: found worse than no other."],
  });
};
