// Means over the same data sets: one row a checkpoint, one column a precision.

sections.averages = (page) => {
  const { data, el, name } = page;
  const rows = board.unpackCells(data.rows, data.cell);
  const family = (row) => data.families[row.family];
  const over = (row) => `${family(row).datasets.length} data sets: ${family(row).datasets.join(", ")}`;
  const policy = (row) => (family(row).board_policy === "-" ? [] : [el("span", { class: "fact wide" }, "policy ", name(row.policy))]);
  page.table(document.getElementById("averages-place"), {
    name: "averages",
    title: "Means over data sets (%)",
    caption: "Mean over data sets by checkpoint, one column a precision, in groups of the same data sets",
    rows,
    columns: [
      ...board.subject(page, rows),
      ...data.columns.map((precision, index) => board.numbers(precision, index)),
      ...(new Set(rows.map((row) => row.source)).size > 1 ? [board.source] : []),
    ],
    facets: [
      { name: "task", label: "Task" }, { name: "protocol", label: "Protocol" },
      { name: "metric", label: "Metric" }, { name: "method", label: "Method" },
      { name: "architecture", label: "Architecture" }, { name: "policy", label: "Policy" },
      { name: "engine", label: "Engine" },
    ],
    group: {
      of: (row) => `${row.family}`,
      label: (row) => `${row.task}, ${row.protocol}, ${row.metric}, mean over ${over(row)}`,
      head: (row) => [
        el("strong", {}, name(row.protocol)),
        el("span", { class: "fact" }, row.metric),
        el("span", { class: "fact", title: family(row).datasets.join(", ") }, over(row)),
        ...policy(row),
      ],
    },
    ...board.choices(page),
    notes: [data.note],
  });
  const notes = data.families.flatMap((facts) => facts.notes.map((note) => `${facts.protocol}, ${note}`));
  const left = document.getElementById("averages-left");
  left.hidden = notes.length === 0;
  left.querySelector("ul").replaceChildren(...notes.map((note) => el("li", {}, el("bdi", {}, note))));
};
