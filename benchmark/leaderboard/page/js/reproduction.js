// Published numbers beside ours.

sections.reproduction = (page) => {
  const { data, el, name } = page;
  const KINDS = { reproduced: "done", differs: "failed", "not comparable": "skipped", failed: "failed", "not run": "waiting" };
  const SIGNS = { reproduced: "✓", differs: "≠", "not comparable": "∥", failed: "✕", "not run": "…" };
  const title = (table) => `${table.paper}, ${table.table}`;
  const tables = new Map(data.tables.map((table) => [title(table), table]));
  const rows = data.tables.flatMap((table) => table.rows.map((list) => ({
    ...Object.fromEntries(list.map((value, index) => [data.columns[index], value])), paper: table.paper, table: title(table),
  })));
  const digits = (value, sign = false) => `${sign && value > 0 ? "+" : ""}${value.toFixed(2)}`.replace("-", "−");
  const text = (column, label) => ({ name: column, label, wide: column !== "precision", text: (row) => (row[column] === "-" ? "–" : String(row[column])) });
  const experiment = (row) => [row.dataset, row.architecture, row.protocol].filter((word) => word !== "-");
  const several = (column) => new Set(rows.map((row) => row[column])).size > 1;
  const number = (column, label, say) => ({
    name: column, label, number: true,
    order: (row) => row[column] ?? -1e9,
    text: (row) => (row[column] === null && column !== "published" ? "–" : say(row)),
    cell: (row) => el("span", {}, row[column] === null ? "–" : say(row)),
    fields: (row) => [[label, row[column] ?? ""]],
  });
  const status = (row) => el("span", { class: `state ${KINDS[row.status]}`, title: row.reason || null },
    el("b", { "aria-hidden": "true" }, SIGNS[row.status]), ` ${row.status}`,
    row.reason && row.status !== "not run" ? el("small", { class: "why", dir: "auto" }, row.reason) : null);

  const counts = data.statuses.map((_, index) => data.tables.reduce((sum, table) => sum + table.counts[index], 0));
  document.getElementById("reproduction-summary").replaceChildren(
    el("ul", { class: "keys" }, data.statuses.map((one, index) => counts[index] ? el("li", {},
      el("span", { class: `state ${KINDS[one]}` }, el("b", { "aria-hidden": "true" }, SIGNS[one]), ` ${counts[index].toLocaleString("en")} ${one === "differs" && counts[index] > 1 ? "differ" : one}`)) : null)));
  document.getElementById("reproduction-differing").replaceChildren(
    el("summary", {}, "What differs from the published experiments, and the command of each table"),
    el("dl", { class: "about" }, data.tables.map((table) => [
      el("dt", {}, title(table)),
      el("dd", {}, table.differs || "no known difference", table.command ? [" ", el("code", {}, table.command)] : null),
    ])));

  page.table(document.getElementById("reproduction-place"), {
    name: "reproduction",
    title: "Published numbers and ours",
    caption: "Published numbers, ours, and their differences, in groups of one table",
    rows,
    columns: [
      { name: "system", label: "System", cell: (row) => el("div", {}, name(row.system), el("bdi", { class: "narrow" }, `${row.dataset}, ${row.metric}`)) },
      {
        name: "dataset", label: "Experiment", wide: true, text: (row) => experiment(row).join(", "),
        cell: (row) => el("div", { class: "experiment" }, el("bdi", {}, row.dataset), el("small", { dir: "auto" }, experiment(row).slice(1).join(" · "))),
        fields: (row) => [["Data set", row.dataset], ["Architecture", row.architecture], ["Protocol", row.protocol]],
      },
      text("precision", "Precision"), text("metric", "Metric"),
      {
        ...number("published", "Published", (row) => row.printed),
        cell: (row) => el("span", { title: row.doubt ? "The printed number is uncertain" : null }, row.printed, row.doubt ? el("sup", {}, "?") : null),
      },
      {
        ...number("ours", "Ours", (row) => digits(row.ours) + (row.sd === null ? "" : ` ± ${digits(row.sd)}`)),
        fields: (row) => [["Ours", row.ours ?? ""], ["sd", row.sd ?? ""], ["Seeds", row.n_seeds]],
        cell: (row) => el("span", { title: row.ours === null ? null : `${row.n_seeds} ${row.n_seeds === 1 ? "seed" : "seeds"}` }, row.ours === null ? "–" : digits(row.ours),
          row.sd === null ? null : el("span", { class: "sd" }, `±\u202f${digits(row.sd)}`)),
      },
      {
        ...number("difference", "Difference", (row) => digits(row.difference, true)),
        fields: (row) => [["Difference", row.difference ?? ""], ["Tolerance", row.tolerance ?? ""]],
        cell: (row) => el("span", {}, row.difference === null ? "–" : digits(row.difference, true),
          row.tolerance === null ? null : el("small", { title: "Allowed distance from the published number" }, `± ${row.tolerance} allowed`)),
      },
      { name: "status", label: "Status", text: (row) => row.status, cell: status, fields: (row) => [["Status", row.status], ["Reason", row.reason]] },
    ],
    facets: [
      { name: "status", label: "Status" }, { name: "table", label: "Table" }, { name: "dataset", label: "Data set" },
      ...(several("architecture") ? [{ name: "architecture", label: "Architecture" }] : []), { name: "precision", label: "Precision" },
    ],
    group: {
      of: (row) => row.table,
      label: (row) => row.table,
      head: (row) => {
        const table = tables.get(row.table);
        return [
          el("strong", {}, row.table),
          table.suite ? el("span", { class: "fact" }, "suite ", el("code", {}, table.suite)) : null,
          table.command ? el("button", { type: "button", class: "quiet", title: table.command, click: (event) => copied(event.target, table.command) }, "copy command") : null,
          table.differs ? el("span", { class: "fact differing", title: table.differs }, table.differs) : null,
        ];
      },
    },
    notes: ["Published numbers are the papers'; ours are means over seeds."],
  });

  async function copied(button, command) {
    button.textContent = await page.copy(command) ? "copied" : command;
    setTimeout(() => { button.textContent = "copy command"; }, 2500);
  }
};
