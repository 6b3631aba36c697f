// Tables: search, menus, sorting, paging, links and downloads around DataTables. A spec is
//
//   {name, title, caption, columns, rows, facets, group, notes, dress, chosen}
//
//   name      of the table's keys in the address and of its downloads
//   title     of downloads; caption: the table's name for screen readers
//   columns   [{name, label, head, wide, number, cell(row), order(row), text(row), mark(row), fields(row)}]
//             cell: an element, by default the text; order and text: what is sorted and searched by, by
//             default row[name]; mark: {bold, italic, rank} in downloads; fields: [[label, value], ...] of the
//             CSV, by default the text; head: an element for the header instead of the label
//   facets    [{name, label, of(row)}]: menus; of is row[name] by default, one with one value is left out
//   group     {of(row), label(row), head(row)}: rows of a group stay together in any order
//   notes     lines below the table in downloads
//   dress(row, element)    called for each new row element, and for all of them when choices change
//   chosen(row)            whether the reader chose the row; adds a box to show only these

const PAGE_LENGTH = 100;

function table(DataTable, page, place, spec) {
  const { el, name, state } = page;
  const key = (what) => `${spec.name}.${what}`;
  const columns = spec.columns.map((column) => {
    const text = column.text ?? ((row) => String(row[column.name] ?? "–"));
    return { cell: (row) => name(text(row)), order: text, fields: (row) => [[column.label, text(row)]], ...column, text };
  });
  const facets = (spec.facets ?? [])
    .map((facet) => ({ of: (row) => row[facet.name], ...facet }))
    .map((facet) => ({ ...facet, values: [...new Set(spec.rows.map(facet.of))].sort() }))
    .filter((facet) => facet.values.length > 1);
  const offset = spec.group ? 1 : 0;  // DataTables has one more column, hidden, with the group

  const search = el("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const menus = facets.map((facet) => el("select", { name: facet.name },
    el("option", { value: "" }, "All"),
    facet.values.map((value) => el("option", { value, dir: "auto" }, value))));
  const count = el("p", { class: "count", role: "status", "aria-live": "polite" });
  const clear = el("button", { type: "button", class: "quiet", hidden: true, click: reset }, "Clear filters");
  const only = el("input", { type: "checkbox" });
  const onlyLabel = el("label", { class: "only", hidden: true }, only, el("span", {}));
  const filters = el("button", {
    type: "button", class: "filters", "aria-expanded": "false", "aria-controls": `${spec.name}-menus`,
    click: () => filters.setAttribute("aria-expanded", String(filters.getAttribute("aria-expanded") !== "true")),
  }, "Filters");
  const [before, after] = [["‹", "Previous rows", "previous"], ["›", "Next rows", "next"]].map(([sign, label, where]) =>
    el("button", { type: "button", "aria-label": label, click: () => turn(where) }, sign));
  const pages = el("div", { class: "pages", hidden: true }, before, el("span", {}), after);
  const element = el("table", { class: "results", id: `${spec.name}-table` },
    el("caption", { class: "aside" }, spec.caption),
    el("thead", {}, el("tr", {},
      spec.group ? el("th", { scope: "col" }, "Group") : null,
      columns.map((column) => el("th", { scope: "col", class: classes(column) }, column.head?.() ?? column.label)))));
  const region = el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `${spec.caption}; scrolls` }, element);
  place.replaceChildren(
    el("div", { class: "toolbar" },
      el("label", { class: "search" }, el("span", {}, "Search"), search),
      menus.length ? filters : null,
      el("div", { class: "menus", id: `${spec.name}-menus` },
        menus.map((menu, index) => el("label", {}, el("span", {}, facets[index].label), menu))),
      el("div", { class: "found" }, clear, onlyLabel, count)),
    region,
    el("div", { class: "under" }, pages, actions()));

  const places = new Map();  // group -> its position
  if (spec.group) for (const row of spec.rows) if (!places.has(spec.group.of(row))) places.set(spec.group.of(row), places.size);

  const shown = new DataTable(element, {
    data: spec.rows,
    columns: [
      ...(spec.group ? [{ visible: false, searchable: false, type: "num", data: (row) => places.get(spec.group.of(row)) }] : []),
      ...columns.map((column, index) => ({
        className: classes(column),
        type: column.number ? "num" : "string",
        orderSequence: column.number ? ["desc", "asc", ""] : ["asc", "desc", ""],
        cellType: index ? "td" : "th",
        // DataTables itself displays nothing, since it would parse it as HTML.
        data: (row, type) => ({ display: "", filter: column.text(row) })[type] ?? column.order(row),
        createdCell: (cell, _, row) => fill(cell, column, row),
      })),
    ],
    createdRow: (element, row) => spec.dress?.(row, element),
    orderFixed: spec.group ? { pre: [[0, "asc"]] } : [],
    rowGroup: spec.group ? { dataSrc: spec.group.of, startRender: (rows) => heading(rows.data()[0]) } : undefined,
    order: order(),
    pageLength: PAGE_LENGTH,
    autoWidth: false,
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    language: { zeroRecords: "No row matches.", emptyTable: "There is no row." },
  });
  shown.search.fixed("facets", (text, row) => menus.every((menu, index) => !menu.value || facets[index].of(row) === menu.value));
  shown.search.fixed("chosen", (text, row) => onlyLabel.hidden || !only.checked || spec.chosen(row));

  // DataTables announces the direction of the first sort column, here always the group.
  shown.on("draw", () => columns.forEach((_, index) => {
    const [[at, direction] = []] = current();
    const header = shown.column(index + offset).header();
    if (at === index + offset) header.setAttribute("aria-sort", direction === "asc" ? "ascending" : "descending");
    else header.removeAttribute("aria-sort");
  }));
  search.addEventListener("input", () => state.set(key("search"), search.value));
  for (const menu of menus) menu.addEventListener("change", () => state.set(key(menu.name), menu.value));
  only.addEventListener("change", () => state.set(key("only"), only.checked ? "chosen" : ""));
  shown.on("order", () => {
    const [[index, direction] = []] = current();
    const text = direction ? `${columns[index - offset].name}:${direction}` : "";
    if (text !== state.get(key("sort"))) state.set(key("sort"), text);
  });
  state.subscribe((changed) => {
    if (changed === key("sort")) return;  // changed by this table
    const choice = spec.chosen && (changed === null || changed === "checkpoint");
    if (choice || changed === null || changed.startsWith(key(""))) apply();
  });
  apply();

  function classes(column) {
    return [column.number && "num", column.wide && "wide"].filter(Boolean).join(" ");
  }

  function fill(cell, column, row) {
    if (cell.tagName === "TH") cell.scope = "row";
    cell.replaceChildren(column.cell(row, cell));
  }

  function heading(row) {
    return el("tr", { class: "group" },
      el("th", { scope: "rowgroup", colspan: columns.length }, el("div", {}, spec.group.head(row))));
  }

  function current() {
    return shown.order().map(([index, direction]) => [index, direction])
      .filter(([index, direction]) => index >= offset && direction);
  }

  // The order in the address; without one, rows keep their original order.
  function order() {
    const [column, direction] = state.get(key("sort")).split(/:(?=[^:]*$)/);
    const index = columns.findIndex((each) => each.name === column);
    return index < 0 || !["asc", "desc"].includes(direction) ? [] : [[index + offset, direction]];
  }

  function apply() {
    search.value = state.get(key("search"));
    for (const menu of menus) menu.value = state.get(key(menu.name));
    for (const menu of menus) if (menu.selectedIndex < 0) menu.value = "";  // a link to a value that no longer exists
    if (spec.chosen) {
      const many = spec.rows.filter(spec.chosen).length;
      onlyLabel.hidden = many === 0;
      only.checked = state.get(key("only")) === "chosen";
      onlyLabel.querySelector("span").textContent = `only the ${many} chosen`;
      for (const index of shown.rows().indexes().toArray()) {
        const row = shown.row(index);
        if (row.node()) spec.dress(row.data(), row.node());  // rows that were never shown have no element yet
      }
    }
    if (String(current()) !== String(order())) shown.order(order());
    shown.search(search.value).draw();
    say();
  }

  function say() {
    const { start, end, recordsDisplay: found, recordsTotal: total, pages: many } = shown.page.info();
    const rows = `${total.toLocaleString("en")} ${total === 1 ? "row" : "rows"}`;
    count.textContent = found === total ? rows : `${found.toLocaleString("en")} of ${rows}`;
    const filtered = menus.filter((menu) => menu.value).length;
    clear.hidden = !search.value && !filtered;
    filters.textContent = filtered ? `Filters (${filtered})` : "Filters";
    pages.hidden = many < 2;
    pages.querySelector("span").textContent = `${(start + 1).toLocaleString("en")}–${end.toLocaleString("en")} of ${found.toLocaleString("en")}`;
    [before.disabled, after.disabled] = [start === 0, end === found];
  }

  function turn(where) {
    shown.page(where).draw("page");
    region.scrollTop = 0;
    say();
  }

  function reset() {
    for (const what of ["search", ...menus.map((menu) => menu.name)]) state.set(key(what), "");
    search.focus();
  }

  function actions() {
    const save = (label, extension, type, write) => el("button", {
      type: "button", click: () => page.download(`${spec.name}.${extension}`, type, write()),
    }, label);
    const link = el("button", { type: "button", click: async () => {
      const worked = await page.copy(state.link(place.closest("section").id));
      link.textContent = worked ? "Link copied" : "Copy it from the address bar";
      setTimeout(() => { link.textContent = "Copy link"; }, 2500);
    } }, "Copy link");
    return el("div", { class: "actions", role: "group", "aria-label": "Export what is shown" },
      el("span", { "aria-hidden": "true" }, "Export what is shown:"),
      save("CSV", "csv", "text/csv", () => formats.csv(records())),
      save("Markdown", "md", "text/markdown", () => formats.markdown(sheet())),
      save("LaTeX", "tex", "application/x-tex", () => formats.latex(sheet())),
      link);
  }

  const found = () => shown.rows({ search: "applied", order: "applied" }).data().toArray();

  function records() {
    const rows = found().map((row) => [
      ...(spec.group ? [["group", spec.group.label(row)]] : []),
      ...columns.flatMap((column) => column.fields(row)),
    ]);
    const header = rows.length ? rows[0].map(([label]) => label) : columns.map((column) => column.label);
    return [header, ...rows.map((row) => row.map(([, value]) => value))];
  }

  function sheet() {
    const parts = [];
    for (const row of found()) {
      const heading = spec.group?.label(row) ?? "";
      if (parts.at(-1)?.heading !== heading) parts.push({ heading, rows: [] });
      parts.at(-1).rows.push(columns.map((column) => ({ text: column.text(row), ...column.mark?.(row) })));
    }
    const labels = columns.filter((column) => !column.number).length;
    return { title: spec.title, header: columns.map((column) => column.label), labels, parts, notes: spec.notes ?? [] };
  }
}

// One network at many bit-widths, compared with individually trained networks.

sections.adaptive = (page) => {
  const { data, el, name } = page;
  const rows = board.unpackCells(data.rows, data.cell);
  const several = new Set(rows.map((row) => row.metric)).size > 1;
  page.table(document.getElementById("adaptive-place"), {
    name: "adaptive",
    title: "Adaptive bit-widths: accuracy and Δ_B (%)",
    caption: "Accuracy of networks of adaptive bit-widths, one column per precision, and their ratio to individually trained networks",
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
    notes: ["§ zero-shot: the network was not trained at this bit-width. ≈ rounding alone decides at least 1 % of these predictions. The rows follow different protocols and are not ranked."],
  });
  document.getElementById("adaptive-blanks").replaceChildren(
    ...data.blanks.map((sentence) => el("li", {}, el("bdi", {}, sentence))));
};

// Methods over their pretrainings: one row per method, one column per precision; boards and means are groups.

sections.methods = (page) => {
  const { data, el, name } = page;
  const rows = board.unpackCells(data.rows, data.cell);
  const of = (row) => data.tables[row.table];
  const trained = rows.some((row) => row.training !== "-");
  page.table(document.getElementById("methods-place"), {
    name: "methods",
    title: "Methods (%)",
    caption: "Scores of methods over their pretrainings, one column per precision, in groups of one data set or mean",
    rows,
    columns: [
      {
        name: "name",
        label: "Method",
        cell: (row) => el("div", {}, name(row.name), el("bdi", { class: "narrow" }, `${row.pretrainings} pretraining${row.pretrainings === "1" ? "" : "s"}`)),
      },
      { name: "architecture", label: "Architecture", wide: true },
      ...(trained ? [{ name: "training", label: "Training" }] : []),
      { name: "pretrainings", label: "Pretrainings", wide: true },
      ...data.columns.map((precision, index) => board.numbers(precision, index, data.groups)),
    ],
    facets: [
      { name: "protocol", label: "Protocol" }, { name: "metric", label: "Metric" },
      { name: "name", label: "Method" }, { name: "architecture", label: "Architecture" },
    ],
    group: {
      of: (row) => `${row.table}`,
      label: (row) => of(row).title,
      head: (row) => [
        of(row).over ? null : board.groupLink(row.group),
        el("strong", {}, of(row).over ? "mean" : name(of(row).dataset)), name(of(row).protocol),
        el("span", { class: "fact" }, row.metric),
        of(row).over ? el("span", { class: "fact" }, "over ", name(of(row).over)) : null,
      ],
    },
    notes: [...new Set(data.tables.map((table) => table.note))],
  });
};

// Means over the same data sets: one row per checkpoint, one column per precision.

sections.averages = (page) => {
  const { data, el, name } = page;
  const rows = board.unpackCells(data.rows, data.cell);
  const family = (row) => data.families[row.family];
  const over = (row) => `${family(row).datasets.length} data sets: ${family(row).datasets.join(", ")}`;
  const policy = (row) => (family(row).board_policy === "-" ? [] : [el("span", { class: "fact wide" }, "policy ", name(row.policy))]);
  page.table(document.getElementById("averages-place"), {
    name: "averages",
    title: "Means over data sets (%)",
    caption: "Mean over data sets by checkpoint, one column per precision, in groups of the same data sets",
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

// The published numbers, as their papers print them.

sections.reported = (page) => {
  const { data, el, name } = page;
  page.table(document.getElementById("reported-place"), {
    name: "reported",
    title: "Reported by the papers (neither measured here nor ranked)",
    caption: "Published numbers by system, paper and table, one column per precision",
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
