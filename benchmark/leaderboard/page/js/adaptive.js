// One network at many bit-widths, and what that costs against networks of one bit-width each.

sections.adaptive = (page) => {
  const { data, el, name } = page;
  const rows = board.unpackCells(data.rows, data.cell);
  const several = new Set(rows.map((row) => row.metric)).size > 1;
  page.table(document.getElementById("adaptive-place"), {
    name: "adaptive",
    title: "Adaptive bit-widths: accuracy and Δ_B (%)",
    caption: "Accuracy of networks of adaptive bit-widths, one column a precision, and their ratio to individually trained networks",
    rows,
    columns: [
      {
        name: "checkpoint",
        label: "Checkpoint",
        cell: (row) => el("div", {}, name(row.checkpoint), el("bdi", { class: "narrow" }, row.method)),
      },
      { name: "architecture", label: "Architecture", wide: true },
      { name: "method", label: "Method", wide: true },
      ...data.columns.map((precision, index) => board.numbers(precision, index)),
      {
        name: "delta",
        label: "Δ_B",
        head: () => el("span", {}, "Δ", el("sub", {}, "B")),
        number: true,
        text: (row) => row.delta[0],
        order: (row) => row.delta[1] ?? -1e9,
        cell: (row, element) => {
          element.title = row.delta[2];
          return el("span", { class: "value" }, row.delta[0]);
        },
        fields: (row) => [["delta_b", row.delta[1]]],
      },
      {
        name: "group",
        label: "Group",
        cell: (row) => (row.group ? board.groupLink(row.group) : board.badge("reported")),
      },
    ],
    facets: [
      { name: "dataset", label: "Data set" }, { name: "checkpoint", label: "Checkpoint" },
      { name: "architecture", label: "Architecture" }, { name: "method", label: "Method" },
      { name: "metric", label: "Metric" }, { name: "source", label: "Source" },
    ],
    group: {
      of: (row) => `${row.dataset} ${row.metric}`,
      label: (row) => row.dataset + (several ? `, ${row.metric}` : ""),
      head: (row) => [el("strong", {}, name(row.dataset)), el("span", { class: "fact" }, row.metric)],
    },
    notes: ["§ zero-shot: the network was not trained at this bit-width. The rows follow different protocols and are not ranked."],
  });
  document.getElementById("adaptive-blanks").replaceChildren(
    ...data.blanks.map((sentence) => el("li", {}, el("bdi", {}, sentence))));
};
