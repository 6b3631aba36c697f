// Average precision: one row a detector, one column a metric; ranked within a group and precision.

sections.detection = (page) => {
  const { data, el, name } = page;
  const rows = board.unpackCells(data.rows, data.cell);
  const several = (column) => new Set(rows.map((row) => row[column])).size > 1;
  const label = (row) => `${row.dataset}, ${row.protocol}, ${row.engine}, ${row.precision} (group ${row.group})`;
  const head = (row) => {
    const facts = data.groups[row.group];
    const images = facts.images.map((n) => n.toLocaleString("en")).join(" or ");
    return [
      board.groupLink(row.group), el("strong", {}, name(row.dataset)), name(row.protocol),
      el("strong", {}, name(row.precision)),
      el("span", { class: "fact" }, "engine ", name(row.engine)),
      el("span", { class: "fact wide" }, images ? `${images} test images` : "", ` at ${facts.image_size} px`),
    ];
  };
  page.table(document.getElementById("detection-place"), {
    name: "detection",
    title: "Detection, average precision (%)",
    caption: "Average precision by checkpoint and way of training, in groups of one data set, detector, engine and precision",
    rows,
    columns: [
      ...board.subject(page, rows),
      ...data.columns.map((metric, index) => board.numbers(metric, index, data.groups)),
      board.seeds,
      board.policy,
      ...(several("source") ? [board.source] : []),
    ],
    facets: [
      { name: "dataset", label: "Data set" }, { name: "protocol", label: "Detector" },
      { name: "precision", label: "Precision" }, { name: "training", label: "Training" },
      { name: "method", label: "Method" }, { name: "architecture", label: "Architecture" },
      { name: "policy", label: "Policy" }, { name: "engine", label: "Engine" }, { name: "source", label: "Source" },
    ],
    group: { of: (row) => `${row.group} ${row.precision}`, label, head },
    ...board.choices(page),
    notes: ["Mean over seeds ± standard deviation; † a single seed. Raised: the rank in its group. Bold: found worse than no other."],
  });
};
