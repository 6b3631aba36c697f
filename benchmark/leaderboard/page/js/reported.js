// The published numbers, as their papers print them.

sections.reported = (page) => {
  const { data, el, name } = page;
  page.table(document.getElementById("reported-place"), {
    name: "reported",
    title: "Reported by the papers (neither measured here nor ranked)",
    caption: "Published numbers by system, paper and table, one column a precision",
    rows: board.unpackCells(data.rows, data.cell),
    columns: [
      {
        name: "checkpoint",
        label: "System",
        cell: (row) => el("div", {}, name(row.checkpoint), el("bdi", { class: "narrow" }, row.protocol)),
      },
      { name: "architecture", label: "Architecture", wide: true },
      { name: "protocol", label: "Protocol", wide: true },
      { name: "metric", label: "Metric", wide: true },
      ...data.columns.map((precision, index) => board.numbers(precision, index)),
      { name: "notes", label: "Note", wide: true, cell: (row) => el("span", { class: "prose fine" }, row.notes) },
    ],
    facets: [
      { name: "paper", label: "Paper" }, { name: "table", label: "Table" },
      { name: "dataset", label: "Data set" }, { name: "metric", label: "Metric" },
    ],
    group: {
      of: (row) => `${row.paper} ${row.table} ${row.dataset}`,
      label: (row) => `${row.paper}, ${row.table}: ${row.dataset}`,
      head: (row) => [el("strong", {}, name(row.dataset)), el("span", { class: "fact" }, `${row.paper}, ${row.table}`)],
    },
    notes: Object.entries(data.papers).map(([paper, title]) => `${paper}: ${title}`),
  });
  document.getElementById("reported-sources").replaceChildren(
    ...Object.entries(data.papers).map(([paper, title]) => el("li", {}, `${paper}: `, el("cite", {}, title))));
};
