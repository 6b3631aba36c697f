// Curves of one board at a time, and a table of the areas under all curves.

sections.curves = (page) => {
  const { data, el, state } = page;
  const SHOWN = 6;  // checkpoints shown until the reader chooses
  const VIEWS = {
    score: { label: "Score", what: "value" },
    retained: { label: "Retained", what: "retention" },
    operations: { label: "Bit-ops", what: "value", cost: "bit_operations", axis: "Bit-operations of one image", unit: "" },
    bytes: { label: "Bytes", what: "value", cost: "weight_bytes", axis: "Bytes of the weights, packed", unit: "B" },
  };
  const boards = data.boards.map((board, index) => ({
    ...board,
    id: `${board.group}.${board.metric}`,
    title: [board.dataset, board.protocol, board.metric].join(" · "),
    lines: board.lines.map((line) => ({ ...line, points: line.points.map(point) })),
  }));

  const place = document.getElementById("curves-place");
  const which = el("select", { class: "which", change: () => state.set("curves.board", which.value) },
    boards.map((board) => el("option", { value: board.id, dir: "auto" }, `${board.group} · ${board.title}`)));
  const views = Object.entries(VIEWS).map(([key, view]) => el("label", {},
    el("input", { type: "radio", name: "curves-view", value: key, change: () => state.set("curves.view", key === "score" ? "" : key) }),
    el("span", {}, view.label)));
  const add = el("select", { change: () => { if (add.value) choose([...shownNames(), add.value]); } });
  const chart = el("div", { class: "chart", role: "img" });
  const legend = el("ul", { class: "legend", "aria-label": "Lines shown" });
  const said = el("p", { class: "fine", role: "status" });
  place.replaceChildren(
    el("div", { class: "toolbar" },
      el("label", {}, el("span", {}, "Board"), which),
      el("fieldset", { class: "segments" }, el("legend", {}, "Show"), views),
      el("label", {}, el("span", {}, "Add a checkpoint"), add)),
    chart, legend, said);
  state.subscribe((key) => {
    if (key === null || key === "checkpoint" || key.startsWith("curves.")) draw();
  });
  draw();
  areas();

  function point(list) {
    return Object.fromEntries(list.map((value, index) => [data.point[index], value]));
  }

  function current() {
    return boards.find((board) => board.id === state.get("curves.board")) ?? boards[0];
  }

  function shownNames() {
    const names = [...new Set(current().lines.map((line) => line.checkpoint))];
    const chosen = names.filter((name) => state.list("checkpoint").includes(name));
    return chosen.length ? chosen : names.slice(0, SHOWN);
  }

  function choose(names) {
    state.set("checkpoint", names);
  }

  function draw() {
    const board = current();
    const key = VIEWS[state.get("curves.view")] ? state.get("curves.view") : "score";
    const view = VIEWS[key];
    const names = shownNames();
    const lines = board.lines.filter((line) => names.includes(line.checkpoint));
    const drawn = lines.map((line) => shape(board, line, view));
    const points = drawn.flatMap((line) => line.points);
    which.value = board.id;
    for (const label of views) label.firstChild.checked = label.firstChild.value === key;
    menu(board, names);
    list(board, lines, names);
    const score = `${board.metric} (%)`;
    page.plot(chart, view.cost ? fronts.traces(drawn) : drawn.map((line) => fronts.trace(line, 2.2)), {
      hovermode: "closest",
      hoverdistance: 30,
      xaxis: view.cost
        ? fronts.axis(drawn, view.axis, view.unit, Math.min(innerWidth, 1400))
        : { type: "category", categoryorder: "array", categoryarray: board.precisions, range: [-0.35, board.precisions.length - 0.65] },
      yaxis: { title: { text: view.what === "value" ? score : `${board.metric}, % of full precision`, standoff: 12 }, ticksuffix: "" },
    });
    chart.setAttribute("aria-label", `${view.label} of ${board.title}: ${lines.length} lines, ${points.length} points. The table below has the areas under the curves, the boards every number.`);
    const empty = { operations: "No result here includes costs: they were made before costs were counted.", bytes: "No result here includes costs: they were made before costs were counted.", retained: "No line here has a full-precision score to be held against." };
    const singles = lines.some((line) => line.points.some((one) => one.spread === "images"));
    said.textContent = points.length ? (singles ? "Some intervals are over the test images of a single seed; hover over a point to see which." : "") : empty[key] ?? "";
  }

  function shape(board, line, view) {
    const [low, high] = view.what === "value" ? ["low", "high"] : ["retention_low", "retention_high"];
    const start = !view.cost && line.full !== null && board.lines[line.full] !== line
      ? board.lines[line.full].points.filter((one) => board.precisions[one.precision] === "FP") : [];
    const points = [...start, ...line.points].filter((one) => one[view.what] !== null && (!view.cost || one[view.cost]));
    return {
      label: line.label,
      look: page.colour(several(board) ? line.label : line.checkpoint),
      points: points.map((one) => {
        const precision = board.precisions[one.precision];
        return { x: view.cost ? one[view.cost] : precision, y: one[view.what], low: one[low], high: one[high], precision, text: story(board, line, one, view) };
      }),
    };
  }

  function several(board) {
    return new Set(board.lines.map((line) => line.checkpoint)).size < board.lines.length;
  }

  function story(board, line, one, view) {
    const digits = (value) => value.toFixed(1).replace("-", "−");
    const of = { seeds: `95 % over ${one.seeds} seeds`, images: "95 % over test images, one seed", "-": "one seed" }[one.spread];
    const interval = one.low === null ? of : `${digits(one.low)} to ${digits(one.high)}, ${of}`;
    return [
      `<b>${page.plain(line.label)}</b>, ${board.precisions[one.precision]}`,
      `${digits(one.value)} % (${interval})`,
      one.retention === null ? null : `${digits(one.retention)} % of full precision retained`,
      one.bit_operations ? `${scaled(one.bit_operations)} bit-operations, ${scaled(one.weight_bytes)}B of weights` : null,
    ].filter(Boolean).join("<br>");
  }

  function menu(board, names) {
    const others = [...new Set(board.lines.map((line) => line.checkpoint))].filter((name) => !names.includes(name));
    add.replaceChildren(el("option", { value: "" }, others.length ? `${others.length} more` : "all are shown"),
      ...others.map((name) => el("option", { value: name, dir: "auto" }, name)));
    add.disabled = !others.length;
  }

  function list(board, lines, names) {
    legend.replaceChildren(...lines.map((line) => {
      const look = page.colour(several(board) ? line.label : line.checkpoint);
      const alone = names.length === 1;
      return el("li", {}, el("button", {
        type: "button", style: `--line: ${look.colour}`, "data-dash": look.dash, disabled: alone,
        "aria-label": `Remove ${line.label}`, title: alone ? null : "Remove it",
        click: () => choose(names.filter((name) => name !== line.checkpoint)),
      }, page.name(line.label), alone ? null : el("span", { "aria-hidden": "true" }, "×")));
    }));
  }

  function areas() {
    const rows = boards.flatMap((each) => each.lines.map((line) => ({
      ...line, group: each.group, id: each.id, title: each.title, dataset: each.dataset, protocol: each.protocol,
      metric: each.metric, shared: each.shared, fp: (line.points.find((one) => each.precisions[one.precision] === "FP") ?? {}).value ?? null,
    }))).filter((row) => row.area);
    const area = document.getElementById("areas-place");
    if (!rows.length) {
      area.replaceChildren(el("p", { class: "fine" }, "No line has two low-bit precisions in common with others."));
      return;
    }
    const number = (value) => (value === null ? "–" : value.toFixed(1));
    const column = (name, label, of) => ({
      name, label, number: true,
      order: (row) => of(row)[0] ?? -1e9,
      text: (row) => { const [mean, sd] = of(row); return sd === null ? number(mean) : `${number(mean)} ± ${number(sd)}`; },
      cell: (row) => {
        const [mean, sd] = of(row);
        return el("span", {}, el("span", { class: "value" }, number(mean)), sd === null ? null : el("span", { class: "sd" }, `±\u202f${number(sd)}`));
      },
      fields: (row) => { const [mean, sd] = of(row); return [[label, mean ?? ""], [`${label} sd`, sd ?? ""]]; },
    });
    const label = (row) => `${row.group}. ${row.title}, ${row.shared[0]} to ${row.shared.at(-1)}`;
    page.table(area, {
      name: "areas",
      title: "Area under the curve (%)",
      caption: "Area under each curve, in groups of one board and metric",
      rows,
      columns: [
        ...board.subject(page, rows),
        column("area", "Area", (row) => row.area),
        column("retained", "Area retained", (row) => row.retained ?? [null, null]),
        column("fp", "Full precision", (row) => [row.fp, null]),
        board.policy,
      ],
      facets: [{ name: "dataset", label: "Data set" }, { name: "protocol", label: "Protocol" }, { name: "metric", label: "Metric" }, { name: "method", label: "Method" }, { name: "architecture", label: "Architecture" }],
      group: {
        of: (row) => row.id, label,
        head: (row) => [board.groupLink(row.group), el("strong", {}, page.name(row.dataset)), page.name(row.protocol), el("span", { class: "fact" }, row.metric), el("span", { class: "fact" }, `over ${row.shared.join(", ")}`)],
      },
      ...board.choices(page),
    });
  }
};
