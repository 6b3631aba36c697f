// The state of every planned cell, and the reasons for missing numbers.

sections.coverage = (page) => {
  const { data, el, name } = page;
  const SIGNS = { done: "✓", running: "▶", waiting: "…", failed: "✕", skipped: "↷" };
  const SAY = {
    done: "has its number",
    running: "a runner is running it now",
    waiting: "not started, or stopped and to be resumed",
    failed: "gave no number; the reason is below",
    skipped: "could not start; the reason is below",
  };
  const counted = (cell) => data.states.map((state, index) => [state, cell?.[index] ?? 0]).filter(([, count]) => count);
  const words = (cell) => counted(cell).map(([state, count]) => `${count} ${state}`).join(", ") || "not planned";
  const rows = data.rows.map((row) => ({ ...row, state: worst(row) }));

  keys();
  if (data.suites.length) suites();
  cells();
  if (data.missing.length) missing();

  function worst(row) {
    const found = new Set(row.cells.flatMap((cell) => counted(cell).map(([state]) => state)));
    return ["failed", "skipped", "running", "waiting", "done"].find((state) => found.has(state));
  }

  function keys() {
    const used = new Set(rows.flatMap((row) => row.cells.flatMap((cell) => counted(cell).map(([state]) => state))));
    document.getElementById("coverage-keys").replaceChildren(
      ...data.states.filter((state) => used.has(state)).map((state) =>
        el("li", {}, el("span", { class: `state ${state}` }, el("b", { "aria-hidden": "true" }, SIGNS[state]), ` ${state}`), `: ${SAY[state]}`)),
      el("li", {}, el("span", { class: "unplanned" }, "·"), " not planned: no suite that ran here asks for it"));
  }

  function suites() {
    document.getElementById("coverage-suites").replaceChildren(el("div", { class: "suites" }, data.suites.map((suite) => {
      const total = suite.jobs.reduce((sum, count) => sum + count, 0);
      const text = counted(suite.jobs).map(([state, count]) => `${count} ${state}`).join(", ");
      return [
        el("strong", {}, name(suite.name)),
        el("div", { class: "meter", role: "img", "aria-label": `${suite.name}: ${text} of ${total} jobs` },
          counted(suite.jobs).map(([state, count]) => el("i", { class: state, style: `flex: ${count}`, title: `${count} ${state}` }))),
        el("span", {}, suite.jobs[0] === total ? `all ${total} jobs done` : `${text} of ${total} jobs`),
      ];
    })));
  }

  function cells() {
    const several = (column) => new Set(rows.map((row) => row[column])).size > 1;
    const dash = (row, column) => (row[column] === "-" ? "–" : row[column]);
    const label = (column, text) => ({ name: column, label: text, wide: true, text: (row) => dash(row, column) });
    const order = (cell) => (cell ? 1 + cell[0] - cell.slice(1).reduce((sum, count) => sum + count, 0) / 1000 : 0);
    page.table(document.getElementById("coverage-place"), {
      name: "coverage",
      title: "Coverage (jobs)",
      caption: "State of the jobs of every checkpoint, data set and protocol, one column per precision",
      rows,
      columns: [
        {
          name: "checkpoint", label: "Checkpoint",
          cell: (row) => el("div", {}, name(row.checkpoint), el("bdi", { class: "narrow" }, [row.dataset, row.protocol, row.training].filter((word) => word !== "-").join(", "))),
        },
        label("task", "Task"), label("dataset", "Data set"), label("protocol", "Protocol"),
        ...(several("training") ? [label("training", "Training")] : []),
        ...(several("engine") ? [label("engine", "Engine")] : []),
        ...data.precisions.map((precision, index) => ({
          name: precision, label: precision, number: true,
          text: (row) => words(row.cells[index]),
          order: (row) => order(row.cells[index]),
          cell: (row) => drawn(row.cells[index]),
        })),
      ],
      facets: [
        { name: "state", label: "State" }, { name: "task", label: "Task" }, { name: "dataset", label: "Data set" },
        { name: "protocol", label: "Protocol" }, { name: "checkpoint", label: "Checkpoint" },
      ],
    });
  }

  function drawn(cell) {
    const found = counted(cell);
    if (!found.length) return el("span", { class: "unplanned", title: "not planned" }, el("span", { "aria-hidden": "true" }, "·"), el("span", { class: "aside" }, "not planned"));
    return el("span", { title: words(cell) }, found.map(([state, count]) =>
      el("span", { class: `state ${state}` }, el("b", { "aria-hidden": "true" }, SIGNS[state]), ` ${count}`, el("span", { class: "aside" }, ` ${state}`))));
  }

  function missing() {
    document.getElementById("coverage-missing").replaceChildren(
      el("h3", {}, "Without a number"),
      el("ul", { class: "reasons" }, data.missing.map((found) => {
        const many = found.jobs.length;
        return el("li", {},
          el("p", {}, el("span", { class: `state ${found.status}` }, el("b", { "aria-hidden": "true" }, SIGNS[found.status]), ` ${found.status}: `), el("bdi", {}, found.reason)),
          el("details", {}, el("summary", {}, `${many} ${many === 1 ? "job" : "jobs"}${found.log.length ? " and the end of a log" : ""}`),
            el("ul", {}, found.jobs.map((job) => el("li", {}, el("bdi", {}, job.title), " ", el("code", {}, job.id)))),
            found.log.length ? el("pre", { tabindex: "0", "aria-label": "Last lines of the log" }, found.log.join("\n")) : null));
      })));
  }
};
